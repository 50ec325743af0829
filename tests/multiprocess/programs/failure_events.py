"""Events that happen to a rank, such as {"rank": 1, "occasion": "step", "number": 5, "what": "SIGKILL"}.

Occasions, and their numbers:

    start         before the model is made
    step          global step, from 1, before the rank joins the others in that step
    evaluation    epoch of the evaluation, from 0, before the rank joins the others in its first step
    save          step of the checkpoint that is about to be written, in the thread that saves

What happens:

    SIGKILL, ...          the process sends itself this signal
    error, exception      the process raises a `ConfigurationError` or a `RuntimeError`
    damage                the process overwrites a file of its data
    fill                  the process fills the disk of the run directory
    pause                 the process sleeps for 2 s

Events in a step that end the process at once, or fill the disk, wait until the checkpoint before the step is whole.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

import distrain.training.checkpoints.saving
from distrain.config import TrainConfig
from distrain.errors import ConfigurationError
from distrain.runs.checkpoint import checkpoint_path
from distrain.training.jobs.job import TrainingJob

ENDS = ("SIGKILL", "error", "exception", "fill")
DAMAGED = "train-00000.columns.npy"


class Events(keras.callbacks.Callback):
    """Makes each event happen once.

    Args:
        events: the events of this rank.
        config: the settings of the run.
        before_event: called before each event.
    """

    def __init__(self, events: list[dict[str, Any]], config: TrainConfig, *, before_event: Callable[[], None]) -> None:
        super().__init__()
        remaining = list(events)
        self._remaining = lambda: remaining  # a list among the attributes would be state, which a resume restores
        self._config = config
        self._before_event = before_event
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.happens("step", int(self.model.optimizer.iterations.numpy()) + 1)

    def on_test_begin(self, logs: Any = None) -> None:
        self.happens("evaluation", self._epoch)

    def happens(self, occasion: str, number: int = 0) -> None:
        """Make the events of this occasion happen."""
        remaining = self._remaining()
        due = [event for event in remaining if (event["occasion"], event.get("number", 0)) == (occasion, number)]
        for event in due:
            remaining.remove(event)
            self._before_event()
            if occasion == "step" and event["what"] in ENDS:
                self._wait_for_checkpoint(number - 1)
            self._do(event["what"])

    def _wait_for_checkpoint(self, trained: int) -> None:
        every = self._config.checkpoint_every
        path = checkpoint_path(self._config.run / "checkpoints", trained - trained % every) if every else None
        deadline = time.monotonic() + 10
        while path is not None and not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _do(self, what: str) -> None:
        if what == "error":
            raise ConfigurationError("A made-up error.")
        if what == "exception":
            raise RuntimeError("A made-up exception.")
        if what == "pause":
            time.sleep(2)
        elif what == "damage":
            _overwrite(self._config.data / DAMAGED)
        elif what == "fill":
            _fill(self._config.run / "filler")
        else:
            os.kill(os.getpid(), signal.Signals[what])


def eventful(
    job: TrainingJob, config: TrainConfig, events: list[dict[str, Any]], *, before_event: Callable[[], None]
) -> TrainingJob:
    """Return the job with the events of this rank."""
    own_events = Events(events, config, before_event=before_event)
    own_events.happens("start")
    save = distrain.training.checkpoints.saving.save_checkpoint

    def save_eventfully(directory: Path, step: int, *arguments: Any) -> Path:
        own_events.happens("save", step)
        return save(directory, step, *arguments)

    if any(event["occasion"] == "save" for event in events):
        distrain.training.checkpoints.saving.save_checkpoint = save_eventfully
    return replace(job, callbacks=[own_events])


def _overwrite(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size // 2))


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
