"""Runs with callbacks on all ranks, interrupted or not: each rank writes what it saw to FOLDER/rank-R.json.

mpirun -n 2 python callback_ranks.py FOLDER
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np

import distrain
from distrain.cluster.world import find_world
from distrain.errors import ConfigurationError, StopRequested

RANK = find_world(os.environ).rank
is_chief = distrain.is_chief()

folder = Path(sys.argv[1])
rng = np.random.default_rng(0)
x = rng.normal(size=(31, 3)).astype("f4")
y = (x.sum(1, keepdims=True) + rng.normal(size=(31, 1)) > 0).astype("f4")


def build() -> keras.Model:
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, "sigmoid", kernel_initializer="ones")])


def closeness(y_true: Any, y_pred: Any) -> Any:
    """A figure whose better direction Keras does not know."""
    return 1 - abs(y_true - y_pred)


class Interrupt(keras.callbacks.Callback):
    """Sends the last rank a signal at a batch of this process."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.left = (batch,)  # a tuple is no state

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left = (self.left[0] - 1,)
        if self.left[0] == 0 and RANK == 1:
            os.kill(os.getpid(), signal.SIGUSR1)


class Note(keras.callbacks.Callback):
    """Writes a line an epoch, on the chief alone."""

    chief_only = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        with (folder / "epochs.txt").open("a") as file:
            file.write(f"{epoch}\n")


class StopOnRankOne(keras.callbacks.Callback):
    """Stops training at the second batch, as one rank alone sees it."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.stop_training = RANK == 1 and batch == 1


def fit(run: str, callbacks: list[Any], **others: Any) -> Any:
    settings = {"global_batch_size": 8, "epochs": 6, "verbose": 0, "loss": "mse", "metrics": ["auc", closeness]}
    settings |= {"optimizer": make_optimizer, "run": folder / run, "jit_compile": False}
    return distrain.fit(build, (x, y), (x, y), callbacks=callbacks, **settings | others)


def make_optimizer() -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(0.05, momentum=0.9, use_ema=True, ema_momentum=0.5)


def begin_on_cosine() -> None:
    """Begin a run on a falling rate, which `test_callbacks_of_ranks.py` continues on one rank."""
    schedule = {"optimizer": None, "metrics": ["auc"], "schedule": "cosine", "warmup_steps": 3, "learning_rate": 0.05}
    with suppress(StopRequested):
        fit("cosine", [Interrupt(10)], **schedule)


def make(run: str) -> list[Any]:
    """Make each of Keras' callbacks that has a state or a file."""
    files = folder / f"{run} files"
    files.mkdir(exist_ok=True)
    of = keras.callbacks
    patient = {"patience": 3, "min_delta": 100.0, "baseline": 0.999, "start_from_epoch": 1}
    best = {"save_best_only": True, "save_weights_only": True}
    return [
        of.SwapEMAWeights(),
        of.EarlyStopping(monitor="val_auc", restore_best_weights=True, **patient),
        of.ReduceLROnPlateau(factor=0.5, patience=1, min_delta=100.0),
        of.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
        of.ModelCheckpoint(files / "auc-{epoch}-{val_auc:.4f}.weights.h5", monitor="val_auc", **best),
        of.ModelCheckpoint(files / "{epoch}-{batch}.weights.h5", save_freq=3, save_weights_only=True),
        of.ModelCheckpoint(files / "close-{epoch}.weights.h5", monitor="val_closeness", mode="max", **best),
        of.CSVLogger(files / "log.csv"),
        of.TerminateOnNaN(),
        of.LambdaCallback(on_epoch_end=lambda epoch, logs: lines(files, epoch, logs)),
    ]


def lines(files: Path, epoch: int, logs: Any) -> None:
    with (files / f"rank-{RANK}.txt").open("a") as file:
        file.write(f"{epoch} {sorted(logs.items())}\n")


whole = fit("whole", [*make("whole"), Note()])
for batch in (3, 3, 5, None):  # in the first, second and third epoch of four steps
    try:
        resumed = fit("stopped", [*make("stopped"), *([] if batch is None else [Interrupt(batch)])])
    except StopRequested:
        if batch is None:
            raise
begin_on_cosine()
one_rank = fit("one rank", [StopOnRankOne()])
refused = ""
try:
    fit("unknown", [keras.callbacks.ModelCheckpoint(folder / "x.keras", monitor="val_closeness", save_best_only=True)])
except ConfigurationError as error:
    refused = str(error)
results = {"whole": whole, "resumed": resumed, "one rank": one_rank}
notes = {
    "is_chief": is_chief,
    "refused": refused,
    "history": {name: result.keras_history.history for name, result in results.items()},
    "weights": {name: [w.tolist() for w in result.model.get_weights()] for name, result in results.items()},
    "steps": {name: result.summary["global_steps"] for name, result in results.items()},
}
(folder / f"rank-{RANK}.json").write_text(json.dumps(notes))
