"""Two replicas that run ahead and sum on the device, as with GPUs: running_ahead.py FOLDER STRATEGY.

Each process writes FOLDER/ends.RANK.json: the exit code and the message of each run, and the weights after the run.
FOLDER/placed.RANK.json holds where the features of each replica lay when a step began.
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
from distrain.training.loop import step_flags

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
    SingleDevice.batch_devices = Mirrored.batch_devices = property(
        lambda self: [f"CPU:{number}" for number in range(len(self.local_replicas))], lambda self, value: None
    )
    if STRATEGY == "horovod":
        from distrain.distribution.collectives import horovod

        horovod.on_device = lambda: horovod


placed_on: set[tuple[str, ...]] = set()


def note_placement() -> None:
    """Note the devices of the features of each step that is given to a compiled step."""
    own = step_flags.StepFlags._with_stop

    def noting(self: Any, batches: list[Any]) -> list[Any]:
        placed_on.add(tuple(getattr(batch.features, "device", "none")[-5:] for batch in batches))
        return own(self, batches)

    step_flags.StepFlags._with_stop = noting


def words() -> keras.Model:
    """Return a model whose gradients hold rows of an embedding."""
    layers = [keras.layers.Embedding(6, 2), keras.layers.Flatten(), keras.layers.Dense(1, use_bias=False)]
    return keras.Sequential([keras.Input((3,)), *layers])


def dense() -> keras.Model:
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])


def sgd() -> keras.Optimizer:
    """Return an optimizer with velocities, whose rate tells how many updates were counted, once devices are chosen."""
    return keras.optimizers.SGD(keras.optimizers.schedules.InverseTimeDecay(0.05, 1, 0.5), momentum=0.9)


def fit(run: str, train: Any = (X, Y), *, build: Any = dense, **settings: Any) -> dict[str, Any]:
    """Train; return how the run ended."""
    fixed = {"loss": "mse", "shuffle": False, "verbose": 0, "strategy": STRATEGY, "global_batch_size": 8, "keep": 9}
    try:
        result = distrain.fit(
            build,
            train,
            run=FOLDER / run,
            optimizer=sgd,
            **fixed,
            **{"epochs": 2, "devices": "cpu:2" if STRATEGY == "mirrored" else "cpu:1", **settings},
        )
    except DistrainError as error:
        return {"code": error.exit_code, "message": str(error)}
    weights = [weight.tolist() for weight in result.model.get_weights()]
    return {"code": 0, "message": "", "weights": weights, "steps": result.summary["global_steps"]}


def ends() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and end of each run."""
    in_loop = {"steps_per_execution": 4}  # of 6 steps of an epoch
    plain = {"jit_compile": False}  # XLA's compilation takes long, and nobody looks at the weights of these runs
    ids = (np.floor(np.abs(X) * 2).clip(0, 5), Y)
    yield "read at once", fit("read at once")
    yield "loop", fit("loop", **in_loop)
    yield "rows", fit("rows", ids, build=words)
    bad = X.copy()
    bad[29, 0] = np.nan
    yield "skipped", fit("skipped", (bad, Y), skip_nonfinite=2)
    treat_cpus_as_gpus()
    note_placement()
    yield "skipped ahead", fit("skipped ahead", (bad, Y), skip_nonfinite=2)
    yield "skipped loop ahead", fit("skipped loop ahead", (bad, Y), skip_nonfinite=2, **in_loop)
    yield "loop ahead", fit("loop ahead", **in_loop)
    yield "rows ahead", fit("rows ahead", ids, build=words)
    yield "rows loop ahead", fit("rows loop ahead", ids, build=words, **in_loop)
    yield "ahead", fit("ahead", checkpoint_every=4)
    yield "stopped", fit("stopped", callbacks=[Stop()])
    yield "resumed", fit("stopped")
    yield "not finite", fit("not finite", (bad, Y), checkpoint_every=1, **plain)
    yield "not finite loop", fit("not finite loop", (bad, Y), steps_per_execution=5, **plain)
    (FOLDER / f"placed.{RANK}.json").write_text(json.dumps(sorted(placed_on)), encoding="utf-8")
    yield "damaged", fit("damaged", Rows(), **plain)
    yield "damaged loop", fit("damaged loop", Rows(), **in_loop, **plain)


(FOLDER / f"ends.{RANK}.json").write_text(json.dumps(dict(ends())), encoding="utf-8")
