"""Runs with callbacks on all ranks, interrupted or not: each rank writes what it saw to FOLDER/rank-R.json.

mpirun -n 2 python callback_ranks.py FOLDER
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import distrain
from distrain.cluster.world import find_world
from distrain.errors import StopRequested

RANK = find_world(os.environ).rank
is_chief = distrain.is_chief()
loads_keras = "keras" in sys.modules

import keras  # noqa: E402 - is_chief() works without it
import numpy as np  # noqa: E402

folder = Path(sys.argv[1])
rng = np.random.default_rng(0)
x = rng.normal(size=(31, 3)).astype("f4")
y = x.sum(1, keepdims=True) + rng.normal(size=(31, 1)).astype("f4")


def build() -> keras.Model:
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])


class Interrupt(keras.callbacks.Callback):
    """Sends the last rank a signal at its third batch in this process."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.left = (3,)  # a tuple is no state

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


def fit(run: str, callbacks: list[Any]) -> Any:
    optimizer = lambda: keras.optimizers.SGD(0.05, momentum=0.9)  # noqa: E731 - made once the devices are chosen
    settings = {"global_batch_size": 8, "epochs": 6, "verbose": 0, "loss": "mse", "optimizer": optimizer}
    return distrain.fit(build, (x, y), (x, y), run=folder / run, callbacks=callbacks, **settings)


def make() -> list[Any]:
    early = keras.callbacks.EarlyStopping(patience=3, min_delta=100.0, restore_best_weights=True)
    plateau = keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=1, min_delta=100.0)
    return [early, plateau, keras.callbacks.ModelCheckpoint(folder / "m.weights.h5", save_weights_only=True)]


whole = fit("whole", [*make(), Note()])
for interrupted in (True, True, False):
    try:
        resumed = fit("stopped", [*make(), *([Interrupt()] if interrupted else [])])
    except StopRequested:
        if not interrupted:
            raise
one_rank = fit("one rank", [StopOnRankOne()])
results = {"whole": whole, "resumed": resumed, "one rank": one_rank}
notes = {
    "is_chief": is_chief,
    "loads_keras": loads_keras,
    "history": {name: result.keras_history.history for name, result in results.items()},
    "weights": {name: [w.tolist() for w in result.model.get_weights()] for name, result in results.items()},
    "steps": {name: result.summary["global_steps"] for name, result in results.items()},
}
(folder / f"rank-{RANK}.json").write_text(json.dumps(notes))
