"""Two replicas that run ahead and sum on the device, as with GPUs: running_ahead.py FOLDER STRATEGY.

Each process writes FOLDER/ends.RANK.json: the exit code and the message of each run, and the weights after the run.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

import distrain
from distrain.cluster.world import find_world
from distrain.distribution.mirrored import Mirrored
from distrain.distribution.single import SingleDevice
from distrain.errors import DataError, DistrainError

WORLD = find_world(os.environ)
RANK, IS_LAST = WORLD.rank, WORLD.rank == WORLD.size - 1
FOLDER, STRATEGY = Path(sys.argv[1]), sys.argv[2]

rng = np.random.default_rng(0)
X = rng.normal(size=(48, 3)).astype("f4")
Y = X.sum(1, keepdims=True)


class Rows:
    """A source of examples by position; the last rank cannot read example 29, which it trains in step 4."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        if position == 29 and IS_LAST:
            raise DataError("example 29 is damaged")
        return X[position], Y[position]


class Stop(keras.callbacks.Callback):
    """Sends the last rank SIGTERM before epoch 2; a method for batches would keep the run from running ahead."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1 and IS_LAST:
            os.kill(os.getpid(), signal.SIGTERM)


def treat_cpus_as_gpus() -> None:
    """Let every run from now on run ahead, and Horovod sum within the graph."""
    SingleDevice.runs_ahead = Mirrored.runs_ahead = property(lambda self: True, lambda self, value: None)
    if STRATEGY == "horovod":
        from distrain.distribution.collectives import horovod

        horovod.on_device = lambda: horovod


def dense() -> keras.Model:
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])


def adam() -> keras.Optimizer:
    """Return an optimizer, once the devices are chosen."""
    return keras.optimizers.Adam(0.01)


def fit(run: str, train: Any = (X, Y), **settings: Any) -> dict[str, Any]:
    """Train; return how the run ended."""
    fixed = {"loss": "mse", "shuffle": False, "verbose": 0, "strategy": STRATEGY, "global_batch_size": 8, "keep": 9}
    try:
        result = distrain.fit(
            dense,
            train,
            run=FOLDER / run,
            optimizer=adam,
            **fixed,
            **{"epochs": 2, "devices": "cpu:2" if STRATEGY == "mirrored" else "cpu:1", **settings},
        )
    except DistrainError as error:
        return {"code": error.exit_code, "message": str(error)}
    weights = [weight.tolist() for weight in result.model.get_weights()]
    return {"code": 0, "message": "", "weights": weights, "steps": result.summary["global_steps"]}


def ends() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and end of each run."""
    yield "read at once", fit("read at once")
    treat_cpus_as_gpus()
    yield "ahead", fit("ahead", checkpoint_every=4)
    yield "stopped", fit("stopped", callbacks=[Stop()])
    yield "resumed", fit("stopped")
    bad = X.copy()
    bad[29, 0] = np.nan
    yield "not finite", fit("not finite", (bad, Y), checkpoint_every=1)
    yield "damaged", fit("damaged", Rows())


(FOLDER / f"ends.{RANK}.json").write_text(json.dumps(dict(ends())), encoding="utf-8")
