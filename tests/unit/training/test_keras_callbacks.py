"""Keras callbacks see the loop as they see `Model.fit`."""

from __future__ import annotations

import keras
from step_events import step_event

from distrain.training.events import Decision
from distrain.training.keras_callbacks import KerasCallbacks


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
    evaluate = callbacks.around_evaluation(lambda: {"loss": 2.0})
    decisions = []
    callbacks.before_training()
    for epoch in range(num_epochs):
        callbacks.before_epoch(epoch)
        for step in range(num_steps):
            assert train_step("batch") == "batch"
            callbacks.after_step(step_event(step + 1, num_steps, epoch=epoch, loss=float(step)))
        assert evaluate() == {"loss": 2.0}
        decisions.append(callbacks.after_epoch(step_event(num_steps, num_steps, epoch=epoch, loss=1.0, val_loss=2.0)))
    callbacks.after_training({"loss": 1.0, "val_loss": 2.0})
    return decisions


def test_callbacks_are_called_as_by_fit():
    """`Model.fit` calls the same callback over 2 epochs of 3 steps."""

    def model():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    diary, witness = Diary(), Diary()
    drive(KerasCallbacks([diary], model=model(), num_epochs=2, num_steps=3), 2, 3)
    data = keras.ops.ones((3, 1))
    model().fit(data, data, batch_size=1, epochs=2, validation_data=(data, data), callbacks=[witness], verbose=0)
    assert [entry[:2] for entry in diary.entries] == [entry[:2] for entry in witness.entries]
    assert [set(logs) for _, _, logs in diary.entries] == [set(logs) for _, _, logs in witness.entries]


def test_a_callback_may_end_training():
    diary = Diary(stop_after=1)
    callbacks = KerasCallbacks([diary], model=keras.Sequential([keras.Input((1,))]), num_epochs=3, num_steps=1)
    assert drive(callbacks, 3, 1) == [None, Decision.FINISH, None]


def test_without_callbacks_nothing_is_wrapped():
    callbacks = KerasCallbacks([], model=None, num_epochs=1, num_steps=1)
    assert callbacks.around_steps(drive) is drive
    assert callbacks.around_evaluation(drive) is drive
    assert drive(callbacks, 1, 2) == [None]
