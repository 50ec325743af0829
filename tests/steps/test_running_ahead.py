"""Training that begins a step before it reads the sums of the step before, as on GPUs; here on a CPU."""

from __future__ import annotations

import math
import os
import signal
from contextlib import nullcontext

import keras
import numpy as np
import pytest
import tensorflow as tf
from task_state import set_state, state_of

import distrain
from distrain.data.batches import epoch_batches, sample_batch
from distrain.data.plan import EpochPlan
from distrain.data.shuffle import epoch_order
from distrain.data.sources import array_examples
from distrain.distribution.single import SingleDevice
from distrain.errors import ConfigurationError, DivergenceError, StopRequested
from distrain.runs.checkpoint import list_checkpoints, load_checkpoint
from distrain.runs.progress import Progress
from distrain.training.loop.events import Decision, NotFinite
from distrain.training.loop.loop import EpochSteps, TrainingLoop, run_epochs
from distrain.training.steps.stacking import stacked
from distrain.training.steps.step import make_train_steps
from distrain.training.steps.task import batch_specs, make_task

# Keras reads variables by a way that NumPy will drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(60, 4)).astype(np.float32)
Y = RANDOM.normal(size=(60, 2)).astype(np.float32)


class Loop:
    """Steps of an epoch that note when they begin and when their sums are read."""

    def __init__(self, *, bad=None):
        self.log = []
        self._bad = bad

    def train_steps(self, group):
        (step,) = group
        self.log.append(f"begin {step}")

        def read():
            self.log.append(f"read {step}")
            yield NotFinite("The loss is nan", (0,)) if step == self._bad else [np.float32(1), np.float32(1)]

        return read()

    def run(self, num_steps=4, *, after_step=(), **settings):
        loop = TrainingLoop(
            num_epochs=1,
            open_epoch=lambda progress: EpochSteps(num_steps, lambda step: 1, nullcontext(iter(range(1, 99)))),
            train_steps=self.train_steps,
            evaluate=dict,
            metrics_of=lambda sums: {"loss": 0.0},
            after_step=[lambda event: self.log.append(f"after {event.progress.global_step}"), *after_step],
            **settings,
        )
        return run_epochs(loop, Progress())


def test_a_step_begins_before_the_sums_of_the_step_before_are_read():
    loop = Loop()
    progress, _ = loop.run(3, runs_ahead=lambda before, after: True)
    order = ["begin 1", "begin 2", "read 1", "after 1", "begin 3", "read 2", "after 2", "read 3", "after 3"]
    assert loop.log == order
    assert progress.global_step == 3


def test_no_step_begins_before_an_action_has_looked_at_the_weights():
    loop = Loop()
    loop.run(4, runs_ahead=lambda before, after: after != 2)
    assert loop.log.index("after 2") < loop.log.index("begin 3")
    assert loop.log.index("begin 2") < loop.log.index("read 1")


@pytest.mark.parametrize("max_steps", [1, 2, 3])
def test_no_step_begins_beyond_the_last(max_steps):
    loop = Loop()

    def end(event):
        return Decision.FINISH if event.progress.global_step >= max_steps else None

    progress, decision = loop.run(runs_ahead=lambda before, after: True, max_steps=max_steps, after_step=[end])
    assert decision is Decision.FINISH
    assert (progress.global_step, loop.log.count("begin 3")) == (max_steps, int(max_steps == 3))


def test_a_decision_counts_the_step_that_has_begun():
    loop = Loop()

    def stop(event):
        return Decision.STOP if event.progress.global_step == 1 else None

    progress, decision = loop.run(runs_ahead=lambda before, after: True, after_step=[stop])
    assert decision is Decision.STOP
    assert progress.global_step == 2
    assert loop.log[-2:] == ["read 2", "after 2"]


def test_an_error_names_the_step_that_is_not_finite():
    with pytest.raises(DivergenceError, match="The loss is nan at step 2 "):
        Loop(bad=2).run(runs_ahead=lambda before, after: True)


class Ahead(SingleDevice):
    """A CPU that is treated as a GPU."""

    runs_ahead = property(lambda self: True, lambda self, value: None)


def linear():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    return model


def steps_of(features, replicas, *, jit_compile=False, **settings):
    """A model, its compiled steps, and the batches of five steps."""
    examples = array_examples(features, Y)
    sample = sample_batch(examples)
    task = make_task(linear, sample, scope=replicas.scope(), num_columns={}, jit_compile=jit_compile)
    order = epoch_order(60, seed=0, epoch=0, shuffle=False)
    batches = list(epoch_batches(examples, EpochPlan(60, 1, 12), order, replicas=range(1)))
    return task, make_train_steps(task, replicas, batch_specs(sample), **settings), batches


def test_an_update_that_selects_is_the_update_of_a_condition():
    """XLA compiles both; calls of one step and of two end at the weights and sums of the condition."""

    def trained(replicas, at_once):
        task, train, batches = steps_of(X, replicas, jit_compile=True, steps_per_execution=at_once)
        outcomes = [each for first in range(0, 4, at_once) for each in train(batches[first : first + at_once])]
        return [*state_of(task), *(sums for outcome in outcomes for sums in outcome.sums)]

    condition = trained(SingleDevice(), 1)
    for at_once in (1, 2):
        for own, wanted in zip(trained(Ahead(), at_once), condition, strict=True):
            np.testing.assert_allclose(own, wanted, rtol=1e-6, atol=1e-7, err_msg=f"{at_once} at once")


def test_no_step_after_a_bad_one_changes_anything_although_nobody_read_its_outcome():
    features = X.copy()
    features[13, 0] = np.inf
    task, train, batches = steps_of(features, Ahead())
    first = train([batches[0]])
    before = [variable.numpy() for variable in [*task.model.trainable_variables, *task.optimizer.variables]]
    second = train([batches[1]])
    third = train([batches[2]])
    after = [variable.numpy() for variable in [*task.model.trainable_variables, *task.optimizer.variables]]
    assert all(np.array_equal(own, wanted) for own, wanted in zip(after, before, strict=True))
    assert [[outcome.is_finite for outcome in each] for each in (first, second, third)] == [[True], [False], [True]]


def test_a_bad_step_that_is_skipped_changes_nothing_and_the_next_step_counts():
    features = X.copy()
    features[13, 0] = np.inf
    task, train, batches = steps_of(features, Ahead(), skips=True)
    start, states = state_of(task), []
    for numbers in ((0, 2), (0, 1, 2)):
        set_state(task, start)
        read = [train([batches[number]]) for number in numbers]
        assert [len(list(outcomes)) for outcomes in read] == [1] * len(numbers)
        states.append(state_of(task))
    for own, wanted in zip(*states, strict=True):
        np.testing.assert_array_equal(own, wanted)


@pytest.fixture
def ahead(monkeypatch):
    monkeypatch.setattr(SingleDevice, "runs_ahead", Ahead.runs_ahead)


def fit(run, features=X, *, build=linear, **settings):
    fixed = {"global_batch_size": 12, "epochs": 2, "keep": 9, "strategy": "single", "devices": "cpu:1"}
    return distrain.fit(build, x=features, y=Y, run=run, jit_compile=False, **fixed, **settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run ahead that nothing stops, and its folder."""
    run = tmp_path_factory.mktemp("ahead") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SingleDevice, "runs_ahead", Ahead.runs_ahead)
        return fit(run, checkpoint_every=3), run


def test_checkpoints_hold_the_weights_of_their_step(tmp_path, whole):
    fit(tmp_path / "run", checkpoint_every=3)
    paths = [list_checkpoints(run / "checkpoints") for run in (tmp_path / "run", whole[1])]
    assert [path.name for path in paths[0]] == [path.name for path in paths[1]]
    assert len(paths[0]) == 5  # steps 3, 5, 6, 9, 10
    for own, wanted in zip(*paths, strict=True):
        arrays, expected = load_checkpoint(own).arrays, load_checkpoint(wanted).arrays
        assert all(np.allclose(arrays[name], expected[name], rtol=1e-5, atol=1e-6) for name in expected)


@pytest.mark.usefixtures("ahead")
def test_a_stop_saves_the_step_that_had_begun_and_a_resume_ends_at_the_same_bits(tmp_path, whole):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StopRequested, match="at step 2,"):
        fit(tmp_path / "halves", callbacks=[Stop()])
    halves = fit(tmp_path / "halves")
    assert halves.summary["weights_sha256"] == whole[0].summary["weights_sha256"]


@pytest.mark.usefixtures("ahead")
def test_a_callback_that_stops_before_an_epoch_ends_it_after_one_step_as_in_keras(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    assert fit(tmp_path, callbacks=[Stop()]).summary["global_steps"] == 6  # five in the first epoch


@pytest.mark.usefixtures("ahead")
def test_the_error_of_a_step_that_is_not_finite_names_the_step_and_its_example(tmp_path):
    features = X.copy()
    features[13, 0] = math.nan
    with pytest.raises(DivergenceError, match=r"at step \d+ .*the data of example 13 is not finite"):
        fit(tmp_path / "run", features=features)


class Errors(keras.metrics.Metric):
    """The sum of all errors; the graph does not know the shape of the new state."""

    def __init__(self):
        super().__init__(name="errors")
        self.errors = self.add_weight(shape=(1,), initializer="zeros")

    def update_state(self, labels, outputs, sample_weight=None):
        errors = tf.reduce_sum(tf.abs(labels - outputs), keepdims=True)[0]
        self.errors.assign(self.errors + tf.gather(errors, tf.where(errors >= 0)[:, 0]))

    def result(self):
        return tf.reduce_sum(self.errors.value)


def test_the_state_of_a_metric_has_the_shape_of_its_variable(tmp_path, monkeypatch):
    def build():
        model = linear()
        model.compile("sgd", "mse", metrics=[Errors()])
        return model

    histories = [fit(tmp_path / "a", build=build).history]
    monkeypatch.setattr(SingleDevice, "runs_ahead", Ahead.runs_ahead)
    histories.append(fit(tmp_path / "b", build=build).history)
    own, wanted = ([epoch["errors"] for epoch in history] for history in histories)
    assert min(wanted) > 1
    np.testing.assert_allclose(own, wanted, rtol=1e-5)


def test_a_figure_without_a_known_shape_is_a_sentence():
    step = tf.function(lambda loss: stacked([loss]), input_signature=[tf.TensorSpec(None)], autograph=False)
    with pytest.raises(ConfigurationError, match=r"the loss needs a shape .*, but it has <unknown>\."):
        step.get_concrete_function()
