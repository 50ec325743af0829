"""An update that selects between new and old values is the update of a condition, bit by bit, for each optimizer."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from distrain.distribution.single import SingleDevice
from distrain.training.steps.gradients import make_update_if
from distrain.training.steps.metrics import MetricStates
from distrain.training.steps.task import TrainableModel


class Ahead(SingleDevice):
    """A CPU that is treated as a GPU."""

    runs_ahead = True


def words():
    """A model whose gradients are rows of an embedding, and a matrix."""
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Embedding(6, 4), keras.layers.Flatten(), keras.layers.Dense(3, use_bias=False)]
    return keras.Sequential([keras.Input((5,), dtype="int32"), *layers])


OPTIMIZERS = {
    "adam of averages": lambda: keras.optimizers.AdamW(0.1, use_ema=True, ema_overwrite_frequency=2, clipnorm=0.1),
    "sgd": lambda: keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5), momentum=0.9),
    "ftrl": lambda: keras.optimizers.Ftrl(0.1),
    "adafactor": lambda: keras.optimizers.Adafactor(0.1),
    "lamb": lambda: keras.optimizers.Lamb(0.1),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.RMSprop(0.1), dynamic_growth_steps=2),
    "accumulating": lambda: keras.optimizers.Nadam(0.1, gradient_accumulation_steps=2),
}


def trained(replicas, name, *, sound):
    """Variables of model and optimizer after a step for each entry of `sound`, and after each unsound step."""
    model = words()
    model.compile(OPTIMIZERS[name](), "mse")
    model(np.zeros((1, 5), np.int32))
    model.optimizer.build(model.trainable_variables)
    model.compute_loss(None, tf.zeros([1, 3]), tf.zeros([1, 3]))
    update_if = make_update_if(TrainableModel(model, MetricStates(model), {}, False, jit_compile=False), replicas)

    @tf.function(autograph=False)
    def step(is_sound, ids):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(ids, training=True) ** 2)
        update_if(is_sound, tape.gradient(loss, [v.value for v in model.trainable_variables]), [])

    states = []
    for number, is_sound in enumerate(sound):
        step(tf.constant(is_sound), tf.constant(np.random.default_rng(number).integers(0, 6, (2, 5))))
        states.append([v.numpy() for v in [*model.variables, *model.optimizer.variables]])
    return states


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_update_that_selects_is_the_update_of_a_condition(name):
    sound = (True, False, True, True, False)
    wanted = trained(SingleDevice(), name, sound=sound)
    own = trained(Ahead(), name, sound=sound)
    for after, expected in zip(own, wanted, strict=True):
        for value, other in zip(after, expected, strict=True):
            np.testing.assert_array_equal(value, other)
    assert all(np.array_equal(a, b) for a, b in zip(own[0], own[1], strict=True)), "an unsound step changed something"
    assert any(not np.array_equal(a, b) for a, b in zip(own[1], own[2], strict=True))


def test_a_step_that_runs_ahead_holds_no_condition():
    """A condition would make the host of a GPU wait in the middle of the step."""

    def kinds(replicas):
        model = words()
        model.compile(keras.optimizers.Adam(0.1), "mse")
        model(np.zeros((1, 5), np.int32))
        model.optimizer.build(model.trainable_variables)
        model.compute_loss(None, tf.zeros([1, 3]), tf.zeros([1, 3]))
        update_if = make_update_if(TrainableModel(model, MetricStates(model), {}, False, jit_compile=False), replicas)

        @tf.function(autograph=False)
        def step(is_sound):
            gradients = [tf.IndexedSlices(tf.ones([1, 4]), tf.constant([1]), tf.constant([6, 4]))]
            update_if(is_sound, [*gradients, *(tf.ones(v.shape) for v in model.trainable_variables[1:])], [])

        return {node.op for node in step.get_concrete_function(tf.constant(True)).graph.as_graph_def().node}

    assert {"If", "StatelessIf"} & kinds(SingleDevice())
    assert not {"If", "StatelessIf"} & kinds(Ahead())
