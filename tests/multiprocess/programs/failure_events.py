"""What can happen to a rank, and when: {"rank": 1, "occasion": "step", "number": 5, "what": "SIGKILL"}.

Occasions: "start" (before the model is made), "step" (global step `number`, from 1, before the ranks meet in it),
"evaluation" (that of epoch `number`, from 0, before the ranks meet in it), "save" (when the checkpoint of step `number`
is about to be written).

What: the name of a signal, which the process sends itself; "error" and "exception", which are raised; "damage"
overwrites a file of this rank's data; "fill" leaves no room on the disk of the run directory;
"pause" takes 2 s.
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

import distrain.training.saving
from distrain.config import TrainConfig
from distrain.errors import ConfigurationError
from distrain.training.job import TrainingJob

DAMAGED = "train-00000.columns.npy"


class Events(keras.callbacks.Callback):
    """Makes each of the events happen once.

    Args:
        events: of this rank.
        config: of the run.
        tell: called when something is about to happen.
    """

    def __init__(self, events: list[dict[str, Any]], config: TrainConfig, *, tell: Callable[[], None]) -> None:
        super().__init__()
        self._events = list(events)
        self._config = config
        self._tell = tell
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.happens("step", int(self.model.optimizer.iterations.numpy()) + 1)

    def on_test_begin(self, logs: Any = None) -> None:
        self.happens("evaluation", self._epoch)

    def happens(self, occasion: str, number: int = 0) -> None:
        """Something may happen here."""
        due = [event for event in self._events if (event["occasion"], event.get("number", 0)) == (occasion, number)]
        for event in due:
            self._events.remove(event)
            self._tell()
            self._do(event["what"])

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
    job: TrainingJob, config: TrainConfig, events: list[dict[str, Any]], *, tell: Callable[[], None]
) -> TrainingJob:
    """The same job, with the events of this rank."""
    happening = Events(events, config, tell=tell)
    happening.happens("start")
    save = distrain.training.saving.save_checkpoint

    def save_eventfully(directory: Path, step: int, *arguments: Any) -> Path:
        happening.happens("save", step)
        return save(directory, step, *arguments)

    if any(event["occasion"] == "save" for event in events):
        distrain.training.saving.save_checkpoint = save_eventfully
    return replace(job, callbacks=[happening])


def _overwrite(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size // 2))


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
