"""Keras callbacks see the loop as they see `Model.fit`."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from step_events import step_event
from threads_as_processes import on_all

from distrain.cluster.process_group import SingleProcess
from distrain.errors import CheckpointError, ConfigurationError
from distrain.runs.checkpoint import Checkpoint
from distrain.runs.progress import Progress
from distrain.training.callbacks.keras_callbacks import KerasCallbacks
from distrain.training.callbacks.state import attributes_of, changed
from distrain.training.loop.events import Decision


class Diary(keras.callbacks.Callback):
    """Records each call, and stops training after the epoch `stop_after`."""

    def __init__(self, stop_after=None):
        super().__init__()
        self.entries = []
        self.stop_after = stop_after

    def note(self, what, number=None, logs=None):
        self.entries.append((what, number, dict(logs or {})))

    def on_train_begin(self, logs=None):
        self.note("train begin", None, logs)

    def on_epoch_begin(self, epoch, logs=None):
        self.note("epoch begin", epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        self.note("batch begin", batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        self.note("batch end", batch, logs)

    def on_test_begin(self, logs=None):
        self.note("test begin", None, logs)

    def on_test_batch_begin(self, batch, logs=None):
        self.note("test batch begin", batch, logs)

    def on_test_batch_end(self, batch, logs=None):
        self.note("test batch end", batch, logs)

    def on_test_end(self, logs=None):
        self.note("test end", None, logs)

    def on_epoch_end(self, epoch, logs=None):
        self.note("epoch end", epoch, logs)
        self.model.stop_training = epoch == self.stop_after

    def on_train_end(self, logs=None):
        self.note("train end", None, logs)


def drive(callbacks, num_epochs, num_steps):
    """Call `callbacks` in the order of the loop; return the decisions of the epochs."""
    train_step = callbacks.around_steps(lambda batch: batch)

    def evaluate_all():
        evaluate_step = callbacks.around_evaluation_step(lambda batch: [2.0, 1.0], mean)
        assert [evaluate_step("batch") for _ in range(num_steps)] == [[2.0, 1.0]] * num_steps
        return {"loss": 2.0}

    evaluate = callbacks.around_evaluation(evaluate_all)
    decisions = []
    callbacks.before_training(Progress(), None, lambda: None)
    for epoch in range(num_epochs):
        callbacks.before_epoch(epoch)
        for step in range(num_steps):
            assert train_step("batch") == "batch"
            decision = callbacks.after_step(step_event(step + 1, num_steps, epoch=epoch, loss=float(step)))
            if decision is not Decision.GO_ON:
                break
        assert evaluate() == {"loss": 2.0}
        decisions.append(callbacks.after_epoch(step_event(num_steps, num_steps, epoch=epoch, loss=1.0, val_loss=2.0)))
    callbacks.after_training({"loss": 1.0, "val_loss": 2.0}, lambda: "")
    return decisions


def mean(sums):
    return {"loss": float(sums[0] / sums[1])}


def make(callbacks, *, num_epochs=2, num_steps=3, group=None):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    group = group or SingleProcess()
    return KerasCallbacks(callbacks, model=model, group=group, num_epochs=num_epochs, num_steps=num_steps)


ONE = np.ones((1, 1), np.float32)
BATCHES = tf.data.Dataset.from_tensors((ONE, ONE)).repeat(3)


def test_callbacks_are_called_as_by_fit():
    """`Model.fit` calls the same callback over 2 epochs of 3 steps."""

    def model():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", run_eagerly=True)
        return model

    diary, witness = Diary(), Diary()
    drive(make([diary]), 2, 3)
    model().fit(BATCHES, shuffle=False, epochs=2, validation_data=BATCHES, callbacks=[witness], verbose=0)
    assert [entry[:2] for entry in diary.entries] == [entry[:2] for entry in witness.entries]
    assert [set(logs) for _, _, logs in diary.entries] == [set(logs) for _, _, logs in witness.entries]


def test_figures_of_a_test_batch_are_those_of_the_evaluation_so_far():
    diary = Diary()
    step = make([diary]).around_evaluation_step(lambda sums: sums, mean)
    assert step([np.float32(1), np.float32(1)]) == [1, 1]
    step([np.float32(5), np.float32(2)])
    ends = [entry for entry in diary.entries if entry[0] == "test batch end"]
    assert ends == [("test batch end", 0, {"loss": 1.0}), ("test batch end", 1, {"loss": 2.0})]


def test_a_callback_may_end_training():
    diary = Diary(stop_after=1)
    assert drive(make([diary], num_epochs=3, num_steps=1), 3, 1) == [Decision.GO_ON, Decision.FINISH, Decision.GO_ON]


@pytest.mark.parametrize("hook", ["on_train_batch_begin", "on_train_batch_end", "on_batch_end", "on_epoch_begin"])
def test_a_callback_that_stops_in_a_batch_stops_after_it_as_under_fit(hook):
    class Stops(keras.callbacks.Callback):
        calls = 0

        def stop(self, number, logs=None):
            self.calls += 1
            if self.calls == (1 if hook == "on_epoch_begin" else 2):
                self.model.stop_training = True

    setattr(Stops, hook, Stops.stop)
    diary, witness = Diary(), Diary()
    drive(make([Stops(), diary], num_epochs=1), 1, 3)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(BATCHES, shuffle=False, validation_data=BATCHES, callbacks=[Stops(), witness], verbose=0)
    assert [entry[:2] for entry in diary.entries] == [entry[:2] for entry in witness.entries]
    assert ("batch end", 2) not in [entry[:2] for entry in diary.entries]


def test_keras_history_holds_what_fit_returns():
    callbacks = make([])
    drive(callbacks, 2, 3)
    assert callbacks.history.history == {"loss": [1.0, 1.0], "val_loss": [2.0, 2.0]}
    assert callbacks.history.epoch == [0, 1]
    assert callbacks.history.params == {"epochs": 2, "steps": 3, "verbose": 0}
    own = keras.callbacks.History()
    assert make([own]).history is own


def test_without_callbacks_no_step_is_wrapped():
    callbacks = make([])
    assert callbacks.around_steps(drive) is drive
    assert callbacks.around_evaluation_step(drive, mean) is drive
    assert drive(callbacks, 1, 2) == [Decision.GO_ON]


def test_ranks_agree_on_a_stop_of_one_of_them():
    """The callback of rank 1 alone stops, after its second batch."""

    class Stops(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    def run(group):
        callbacks = [Stops()] if group.rank == 1 else [keras.callbacks.Callback()]
        own = make(callbacks, group=group)
        own.before_training(Progress(), None, lambda: None)
        own.before_epoch(0)
        return [own.after_step(step_event(step, 3)) for step in (1, 2)]

    assert on_all(2, run) == [[Decision.GO_ON, Decision.FINISH]] * 2


def test_epochs_alone_are_agreed_on_when_no_callback_sees_batches():
    exchanges = []

    class Counted(SingleProcess):
        def all_gather_bytes(self, content):
            exchanges.append(content)
            return [content, b"0"]

    callbacks = make([keras.callbacks.EarlyStopping(monitor="loss")], group=Counted(size=2))
    callbacks.before_training(Progress(), None, lambda: None)
    callbacks.before_epoch(0)
    exchanges.clear()
    for step in (1, 2, 3):
        assert callbacks.after_step(step_event(step, 3)) is Decision.GO_ON
    assert len(exchanges) == 1, "the first batch of an epoch alone, which on_epoch_begin may stop"


def test_a_callback_that_stops_an_evaluation_is_refused_by_name():
    class Stop(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            self.model.stop_evaluating = True

    evaluate = make([Stop()]).around_evaluation_step(lambda batches: [np.ones(1)], lambda sums: {})
    with pytest.raises(ConfigurationError, match=r"model\.stop_evaluating.*Give less validation data"):
        evaluate([])


@pytest.mark.parametrize(
    "forged",
    [
        {"epoch": {"kind": "json", "value": "all"}},
        {"history": {"kind": "json", "value": [1, 2]}},
        {"history": {"kind": "json", "value": {"loss": 3}}},
        {"on_epoch_end": {"kind": "json", "value": "x"}},
        {"__class__": {"kind": "json", "value": "x"}},
        {"epoch": {"kind": "array"}},
    ],
)
def test_a_forged_history_is_refused(forged):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    callbacks = KerasCallbacks([], model=model, group=SingleProcess(), num_epochs=2, num_steps=2, verbose=0)
    restored = Checkpoint(Path("step-00000005"), {}, {"callbacks": {"attributes": {"History.0": forged}}})
    with pytest.raises(CheckpointError, match="forged or damaged"):
        callbacks.restore_history(restored)


class Helper:
    """An object that a checkpoint cannot hold."""


@pytest.mark.parametrize("of", [lambda one: one, lambda one: [one], lambda one: {"list": [one]}])
def test_another_object_is_a_change_also_at_the_address_of_the_first(of):
    callback = keras.callbacks.Callback()
    callback.helper = of(Helper())
    baseline = attributes_of(callback)
    addresses = set()
    for _ in range(20):
        callback.helper = None  # the memory is free again
        callback.helper = of(Helper())
        addresses.add(id(callback.helper))
        assert list(changed(baseline, attributes_of(callback))) == ["helper"]
    assert len(addresses) < 20
