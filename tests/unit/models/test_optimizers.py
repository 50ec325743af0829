"""The optimizer that distrain makes follows its settings; a setting beside a user's own optimizer is refused."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest

from distrain.config.optimizer import OptimizerSettings
from distrain.errors import ConfigurationError
from distrain.models.optimizers import LinearDecay, choose_optimizer, learning_rate_at, make_optimizer

RATE, STEPS = 0.02, 12


def rates(num_replicas=1, **settings):
    """The learning rate at each step of the run, as the optimizer takes it."""
    settings = OptimizerSettings(**{"learning_rate": RATE, **settings})
    optimizer = make_optimizer(settings, num_steps=STEPS, num_replicas=num_replicas)
    taken = []
    for step in range(STEPS):
        optimizer.iterations.assign(step)
        taken.append(float(optimizer.learning_rate))
    return taken


def after_warmup(step, warmup, shape):
    """NumPy as the witness: the fraction of the rate that a step takes."""
    if step < warmup:
        return step / warmup
    left = (step - warmup) / (STEPS - warmup)
    return {"constant": 1.0, "cosine": 0.5 * (1 + math.cos(math.pi * left)), "linear": 1 - left}[shape]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_each_step_takes_its_learning_rate(schedule, warmup):
    expected = [RATE * after_warmup(step, warmup, schedule) for step in range(STEPS)]
    np.testing.assert_allclose(rates(schedule=schedule, warmup_steps=warmup), expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("warmup", [STEPS, 3 * STEPS])
def test_a_constant_rate_may_warm_up_for_longer_than_the_run(warmup):
    np.testing.assert_allclose(rates(warmup_steps=warmup), RATE * np.arange(STEPS) / warmup, rtol=1e-5)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_falling_schedule_needs_steps_after_the_warm_up(schedule):
    with pytest.raises(ConfigurationError, match=f"--warmup-steps is 12, but the run has 12 steps.*{schedule}"):
        rates(schedule=schedule, warmup_steps=STEPS)


def test_without_settings_the_rate_is_a_number_which_callbacks_can_set():
    assert learning_rate_at(OptimizerSettings(), num_steps=STEPS, num_replicas=4) == 0.001


@pytest.mark.parametrize(("scale", "factor"), [("none", 1), ("linear", 4), ("sqrt", 2)])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_rate_scales_with_the_replicas(scale, factor, schedule):
    scaled = rates(scale_learning_rate=scale, schedule=schedule, num_replicas=4)
    np.testing.assert_allclose(scaled, np.multiply(rates(schedule=schedule), factor), rtol=1e-6)
    assert rates(scale_learning_rate=scale, num_replicas=1)[0] == pytest.approx(RATE)


def test_clip_norm_and_ema_act_as_in_keras():
    own = keras.optimizers.Adam(RATE, global_clipnorm=0.5, use_ema=True, ema_momentum=0.9)
    made = make_optimizer(OptimizerSettings(learning_rate=RATE, clip_norm=0.5, ema=0.9), num_steps=1, num_replicas=1)
    ends = []
    for optimizer in (own, made):
        variables = [keras.Variable([1.0, 2.0]), keras.Variable([3.0])]
        optimizer.build(variables)
        for step in range(4):
            optimizer.apply([keras.ops.array([3.0, step]), keras.ops.array([4.0])], variables)
        before = [v.numpy() for v in variables]
        optimizer.finalize_variable_values(variables)
        ends.append(np.concatenate([*before, *(v.numpy() for v in variables)]))
    np.testing.assert_array_equal(ends[0], ends[1])
    assert not np.array_equal(ends[1][:3], ends[1][3:]), "the averages differ from the last weights"


@pytest.mark.parametrize(
    ("setting", "option"),
    [
        ({"learning_rate": 0.001}, "--learning-rate"),
        ({"warmup_steps": 3}, "--warmup-steps"),
        ({"schedule": "cosine"}, "--schedule"),
        ({"scale_learning_rate": "sqrt"}, "--scale-learning-rate"),
        ({"clip_norm": 1.0}, "--clip-norm"),
        ({"ema": 0.9}, "--ema"),
        ({"ema": 0.9, "clip_norm": 1.0}, "--clip-norm, --ema"),
    ],
)
def test_a_setting_beside_an_own_optimizer_is_refused_by_name(setting, option):
    with pytest.raises(ConfigurationError, match=f"^{option}: .*own optimizer, SGD") as caught:
        choose_optimizer(keras.optimizers.SGD(), OptimizerSettings(**setting), num_steps=9, num_replicas=1)
    assert "\n" not in str(caught.value)


def test_an_own_optimizer_without_settings_is_the_same_object():
    own = keras.optimizers.SGD()
    assert choose_optimizer(own, OptimizerSettings(), num_steps=9, num_replicas=2) is own


def test_a_linear_schedule_survives_saving():
    schedule = LinearDecay(RATE, 30, 10)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert [float(again(step)) for step in range(STEPS)] == [float(schedule(step)) for step in range(STEPS)]
