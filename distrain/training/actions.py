"""What happens between steps: stop early, stop on request, drive Keras callbacks, save.

Decides: whether to go on, from figures that are the same on every replica. Never: touches the plan or the weights.

    with stop_requests() as stop:
        run_epochs(..., after_step=[stop.action], after_epoch=[early_stopping, save])

Each is a plain callable, Moment -> Decision or None; when it is asked is the loop's affair.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from distrain.training.events import Action, Decision, StepEvent

# SIGUSR1 is what Open MPI's mpirun passes on to its processes, where it turns the others into a quick end; cluster
# schedulers send it too, as a warning.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class EarlyStopping:
    """Remembers the epoch of the lowest validation loss; asks to finish after `patience` epochs without a lower one.

    Args:
        patience: 0 never asks.
        state: of an earlier `state()`, to go on from.
    """

    def __init__(self, patience: int, state: Mapping[str, Any] | None = None) -> None:
        self._patience = patience
        self.best_figures: dict[str, float] = dict(state["best_figures"]) if state else {}
        self.best_step: int | None = state["best_step"] if state else None
        self._epochs_since = int(state["epochs_since"]) if state else 0

    def __call__(self, event: StepEvent) -> Decision:
        """Judge the epoch that is over."""
        figures = event.figures()
        loss = figures.get("val_loss", figures["loss"])
        best = self.best_figures.get("val_loss", self.best_figures.get("loss", math.inf))
        self._epochs_since += 1
        if loss < best:
            self.best_figures = dict(figures)
            self.best_step = event.progress.global_step
            self._epochs_since = 0
        return Decision.FINISH if self.is_exhausted() else Decision.GO_ON

    def is_exhausted(self) -> bool:
        """Whether `patience` epochs have passed without a lower loss."""
        return 0 < self._patience <= self._epochs_since

    def state(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {
            "best_figures": self.best_figures,
            "best_step": self.best_step,
            "epochs_since": self._epochs_since,
        }


class StopRequest:
    """Whether somebody asked this process to stop: `signal_name` says by what."""

    def __init__(self) -> None:
        self.signal_name: str | None = None


class Throughput:
    """Measures samples per second over the steps of this process, without the first call, which compiles."""

    def __init__(self) -> None:
        self._num_calls = 0
        self._num_examples = 0
        self._seconds = 0.0

    def __call__(self, event: StepEvent) -> None:
        """Count what was trained since the last moment."""
        self._num_calls += 1
        if self._num_calls > 1:
            self._num_examples += event.num_examples
            self._seconds += event.seconds

    def samples_per_second(self) -> float | None:
        """Examples over all replicas per second of training; None before the second call."""
        return self._num_examples / self._seconds if self._seconds > 0 else None


class FirstStep:
    """Tells a `Reporter` how long this process took from its start to the end of its first step.

    Args:
        report: is told.
        began: when the process, or what it was asked for, began; in seconds since 1970.
        clock: seconds since 1970.
    """

    def __init__(self, report: Any, *, began: float, clock: Callable[[], float] = time.time) -> None:
        self._report = report
        self._began = began
        self._clock = clock
        self.seconds: float | None = None

    def __call__(self, event: StepEvent) -> None:
        """Note the first step; pass over the others."""
        if self.seconds is None:
            self.seconds = self._clock() - self._began
            self._report.note(f"first step after {self.seconds:.1f} s")


def listen_for_stop() -> StopRequest:
    """Take SIGTERM, SIGINT and SIGUSR1 as requests to stop, from here to the end of the process.

    A second SIGINT interrupts at once. Outside the main thread, where Python allows no handlers, signals keep their
    meaning.
    """
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if request.signal_name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal_name = signal.Signals(number).name

    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            signal.signal(number, handle)
    return request


def ignore_stop() -> None:
    """From here on a request to stop is none: a launcher may repeat it while the process ends."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """The same for as long as the context lasts."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield listen_for_stop()
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def report_steps(report: Any) -> Action:
    """Tell a `Reporter` of each step."""

    def tell(event: StepEvent) -> None:
        report.step(
            epoch=event.epoch + 1,
            step=event.progress.global_step,
            steps_per_epoch=event.num_steps,
            num_examples=event.num_examples,
            logs=event.figures,
        )

    return tell


def report_epochs(report: Any, history: list[dict[str, float]]) -> Action:
    """Tell a `Reporter` of each epoch and its evaluation, and add the figures to `history`."""

    def tell(event: StepEvent) -> None:
        history.append(dict(event.figures()))
        place = {"epoch": event.epoch + 1, "step": event.progress.global_step}
        evaluated = {name: value for name, value in history[-1].items() if name.startswith("val_")}
        if evaluated:
            report.evaluate(**place, seconds=event.evaluation_seconds, logs=evaluated)
        report.epoch(**place, num_examples=event.num_examples, seconds=event.seconds, logs=history[-1])

    return tell


def every_steps(steps: int, action: Action) -> Action:
    """Ask `action` each `steps` global steps, but not at the last step of an epoch, whose end is its own occasion.

    Where several steps are taken in one call, it is asked after the call that takes that step.
    """

    def ask(event: StepEvent) -> Decision | None:
        due = event.progress.global_step % steps < event.new_steps and event.step < event.num_steps
        return action(event) if due else None

    return ask


class KerasCallbacks:
    """Drives a user's Keras callbacks from the loop; does nothing when there are none.

    Args:
        callbacks: `keras.callbacks.Callback` objects.
        model: the model they see; compiled with its optimizer.
        num_epochs: told to them as `epochs`.
        num_steps: told to them as `steps`.
    """

    def __init__(self, callbacks: list[Any], *, model: Any, num_epochs: int, num_steps: int) -> None:
        self._list = None
        self._model = model
        if callbacks:
            import keras

            params = {"epochs": num_epochs, "steps": num_steps, "verbose": 0}
            self._list = keras.callbacks.CallbackList(list(callbacks), model=model, **params)

    def before_training(self) -> None:
        """Call `on_train_begin`."""
        if self._list:
            self._model.stop_training = False
            self._list.on_train_begin()

    def before_epoch(self, epoch: int) -> None:
        """Call `on_epoch_begin`."""
        if self._list:
            self._list.on_epoch_begin(epoch)

    def around_steps(self, train_steps: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A function that calls `on_train_batch_begin` first; as in Keras, once where it takes several steps."""
        if not self._list:
            return train_steps
        callbacks = self._list

        def run(steps: Any) -> Any:
            callbacks.on_train_batch_begin(self._step)
            return train_steps(steps)

        return run

    def around_evaluation(self, evaluate: Callable[[], Any]) -> Callable[[], Any]:
        """An evaluation with `on_test_begin` before and `on_test_end` behind it."""
        if not self._list:
            return evaluate
        callbacks = self._list

        def run() -> Any:
            callbacks.on_test_begin()
            figures = evaluate()
            callbacks.on_test_end(figures)
            return figures

        return run

    _step = 0

    def after_step(self, event: StepEvent) -> Decision | None:
        """Call `on_train_batch_end`; a callback may set `model.stop_training`."""
        if not self._list:
            return None
        self._list.on_train_batch_end(event.step - 1, dict(event.figures()))
        self._step = event.step % event.num_steps
        return None

    def after_epoch(self, event: StepEvent) -> Decision | None:
        """Call `on_epoch_end`."""
        if not self._list:
            return None
        self._list.on_epoch_end(event.epoch, dict(event.figures()))
        return Decision.FINISH if self._model.stop_training else None

    def after_training(self, figures: Mapping[str, float]) -> None:
        """Call `on_train_end`."""
        if self._list:
            self._list.on_train_end(dict(figures))
