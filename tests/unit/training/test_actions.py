"""What happens between steps, asked with plain moments."""

from __future__ import annotations

import json
import os
import signal
import threading

import keras
import pytest

from distrain.runs.progress import Progress
from distrain.training.actions import (
    STOP_SIGNALS,
    EarlyStopping,
    FirstStep,
    KerasCallbacks,
    Throughput,
    every_steps,
    stop_requests,
)
from distrain.training.events import Decision, StepEvent


def moment(step=1, num_steps=10, *, epoch=0, seconds=1.0, examples=8, new=1, decision=Decision.GO_ON, **figures):
    return StepEvent(
        epoch=epoch,
        progress=Progress(epoch=epoch, global_step=step),
        step=step,
        num_steps=num_steps,
        new_steps=new,
        num_examples=examples,
        seconds=seconds,
        figures=lambda: figures,
        decision=decision,
    )


def judge(action, losses, **others):
    return [action(moment(step=number + 1, loss=1.0, val_loss=loss, **others)) for number, loss in enumerate(losses)]


GO_ON, FINISH = Decision.GO_ON, Decision.FINISH


@pytest.mark.parametrize(
    ("patience", "losses", "decisions", "best_step"),
    [
        (2, [3, 2, 1], [GO_ON] * 3, 3),
        (2, [3, 4, 5], [GO_ON, GO_ON, FINISH], 1),
        (2, [3, 4, 2, 3, 3], [GO_ON, GO_ON, GO_ON, GO_ON, FINISH], 3),
        (2, [3, 3, 3], [GO_ON, GO_ON, FINISH], 1),  # as low is not lower
        (1, [3, 4], [GO_ON, FINISH], 1),
        (0, [3, 4, 5, 6], [GO_ON] * 4, 1),
        (2, [float("nan"), 1, float("nan"), float("nan")], [GO_ON, GO_ON, GO_ON, FINISH], 2),
    ],
)
def test_early_stopping(patience, losses, decisions, best_step):
    stopping = EarlyStopping(patience)
    assert judge(stopping, losses) == decisions
    assert stopping.best_step == best_step
    assert stopping.best_figures["val_loss"] == losses[best_step - 1]


def test_early_stopping_without_validation_goes_by_the_training_loss():
    stopping = EarlyStopping(1)
    assert stopping(moment(1, loss=2.0)) is GO_ON
    assert stopping(moment(2, loss=1.0)) is GO_ON
    assert stopping(moment(3, loss=1.5)) is FINISH
    assert stopping.best_step == 2


@pytest.mark.parametrize("cut", range(6))
def test_early_stopping_goes_on_from_its_state(cut):
    """The state travels through JSON, as a checkpoint has it."""
    losses = [5, 4, 6, 3, 4, 4]
    whole, first = EarlyStopping(2), EarlyStopping(2)
    decisions = judge(whole, losses)
    before = judge(first, losses[:cut])
    second = EarlyStopping(2, json.loads(json.dumps(first.state())))
    after = [second(moment(step=number + 1, loss=1.0, val_loss=losses[number])) for number in range(cut, 6)]
    assert before + after == decisions == [GO_ON] * 5 + [FINISH]
    assert second.state() == whole.state()


def test_every_steps_but_not_at_the_end_of_an_epoch():
    asked = []
    action = every_steps(3, lambda moment: asked.append(moment.progress.global_step) or Decision.STOP)
    answers = [action(moment(step, num_steps=9)) for step in range(1, 10)]
    assert asked == [3, 6]
    assert [number + 1 for number, answer in enumerate(answers) if answer is Decision.STOP] == [3, 6]


def test_every_steps_where_several_are_taken_in_a_call():
    asked = []
    action = every_steps(5, lambda moment: asked.append(moment.step))
    for step in (3, 6, 9, 12, 15, 18, 21, 22):
        action(moment(step, num_steps=30, new=1 if step == 22 else 3))
    assert asked == [6, 12, 15, 21]


def test_every_steps_counts_global_steps_after_a_resume():
    asked = []
    action = every_steps(4, lambda moment: asked.append(moment.progress.global_step))
    for step in range(1, 6):  # this process took up the epoch at global step 10
        progress = Progress(global_step=10 + step)
        here = moment(step, num_steps=6)
        action(StepEvent(**{**vars(here), "progress": progress}))
    assert asked == [12]


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signals_become_requests_and_are_given_back(number):
    before = [signal.getsignal(each) for each in STOP_SIGNALS]
    with stop_requests() as stop:
        assert stop.signal_name is None
        os.kill(os.getpid(), number)
        assert stop.signal_name == signal.Signals(number).name
        if number == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        else:
            os.kill(os.getpid(), number)  # schedulers repeat SIGTERM: the first one is under way
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == before


def test_other_threads_keep_the_handlers():
    before = [signal.getsignal(each) for each in STOP_SIGNALS]
    inside = []

    def work():
        with stop_requests() as stop:
            inside.append(([signal.getsignal(each) for each in STOP_SIGNALS], stop.signal_name))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [(before, None)]


def test_throughput_leaves_out_the_first_step():
    throughput = Throughput()
    throughput(moment(seconds=100.0, examples=64))
    assert throughput.samples_per_second() is None
    throughput(moment(seconds=0.5, examples=64))
    throughput(moment(seconds=1.5, examples=36))
    assert throughput.samples_per_second() == 50.0


def test_the_first_step_alone_tells_how_long_the_start_took():
    class Said(list):
        note = list.append

    said = Said()
    first_step = FirstStep(said, began=1000.0, clock=iter([1006.25, 1007.0]).__next__)
    assert first_step.seconds is None
    first_step(moment(step=1))
    first_step(moment(step=2))
    assert (said, first_step.seconds) == (["first step after 6.2 s"], 6.25)


class Diary(keras.callbacks.Callback):
    """Writes down what it is told, and stops training when it is told to."""

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
    """An epoch's calls as the loop makes them; returns the decisions of the epochs."""
    train_step = callbacks.around_steps(lambda batch: batch)
    evaluate = callbacks.around_evaluation(lambda: {"loss": 2.0})
    decisions = []
    callbacks.before_training()
    for epoch in range(num_epochs):
        callbacks.before_epoch(epoch)
        for step in range(num_steps):
            assert train_step("batch") == "batch"
            callbacks.after_step(moment(step + 1, num_steps, epoch=epoch, loss=float(step)))
        assert evaluate() == {"loss": 2.0}
        decisions.append(callbacks.after_epoch(moment(num_steps, num_steps, epoch=epoch, loss=1.0, val_loss=2.0)))
    callbacks.after_training({"loss": 1.0, "val_loss": 2.0})
    return decisions


def test_keras_callbacks_are_told_as_fit_tells_them():
    """The witness: what the same callback hears from `Model.fit`, over 2 epochs of 3 steps."""

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
    assert drive(callbacks, 3, 1) == [None, FINISH, None]


def test_without_callbacks_nothing_is_wrapped():
    callbacks = KerasCallbacks([], model=None, num_epochs=1, num_steps=1)
    assert callbacks.around_steps(drive) is drive
    assert callbacks.around_evaluation(drive) is drive
    assert drive(callbacks, 1, 2) == [None]
