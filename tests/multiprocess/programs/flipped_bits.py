"""Runs whose state changes behind the optimizer's back: flipped_bits.py FOLDER STRATEGY, on one process or as ranks.

Each process writes FOLDER/ends.RANK.json: exit code, message and saved steps of each run.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import distrain
from distrain.cluster.world import find_world
from distrain.errors import DistrainError
from distrain.runs.checkpoint import list_checkpoints

RANK = find_world(os.environ).rank
FOLDER, STRATEGY = Path(sys.argv[1]), sys.argv[2]
X = np.random.default_rng(0).normal(size=(64, 3)).astype("f4")
Y = X.sum(1, keepdims=True)


class Disturb(keras.callbacks.Callback):
    """Calls `disturb(model)` after step 5, counted from 1."""

    def __init__(self, disturb: Callable[[Any], None]) -> None:
        super().__init__()
        self._disturb = disturb

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 4:
            self._disturb(self.model)


def flip(variable: Any) -> None:
    """Flip one bit of one number, on the second rank or replica alone."""
    copies = [variable]
    if STRATEGY == "mirrored":
        copies = variable.value.values[1:]
    elif RANK != 1:
        return
    for copy in copies:
        array = np.array(copy.numpy())
        array.reshape(-1).view(np.uint32)[-1] ^= 1 << 16
        copy.assign(array)


def spoil(variable: Any) -> None:
    """Set one number to NaN, on all ranks."""
    array = variable.numpy()
    array.reshape(-1)[-1] = np.nan
    variable.assign(array)


def model(bias: float = 0.0) -> keras.Model:
    kinds = {"bias_initializer": keras.initializers.Constant(bias), "trainable": False}
    frozen = keras.layers.Dense(4, "relu", **kinds, name="frozen")
    norm = keras.layers.BatchNormalization(center=False, scale=False, name="norm")
    return keras.Sequential([keras.Input((3,)), frozen, norm, keras.layers.Dense(1, name="last")])


def in_bfloat16() -> keras.Model:
    keras.config.set_dtype_policy("bfloat16")
    try:
        return model()
    finally:
        keras.config.set_dtype_policy("float32")


def fit(
    run: str, disturb: Callable[[Any], None] | None = None, build: Callable[[], Any] = model, **settings: Any
) -> dict[str, Any]:
    """Train 8 steps, without XLA, whose compilation takes long; return how the run ended."""
    devices = {"devices": "cpu:2"} if STRATEGY == "mirrored" else {}
    settings = {"epochs": 1, "keep": 9, "seed": 1, "jit_compile": False, **devices, **settings}
    fixed = {"loss": "mse", "optimizer": lambda: keras.optimizers.SGD(0.01, 0.9), "verbose": 0, "strategy": STRATEGY}
    callbacks = [Disturb(disturb)] if disturb else []
    try:
        result = distrain.fit(
            build, x=X, y=Y, run=FOLDER / run, global_batch_size=8, callbacks=callbacks, **fixed, **settings
        )
    except DistrainError as error:
        steps = [int(path.name.removeprefix("step-")) for path in list_checkpoints(FOLDER / run / "checkpoints")]
        return {"code": error.exit_code, "message": str(error), "reporter": error.reporting_rank, "steps": steps}
    return {"code": 0, "message": "", "digest": result.summary["weights_sha256"]}


CASES: dict[str, Callable[[Any], None]] = {
    "weight": lambda model: flip(model.get_layer("last").kernel),
    "frozen": lambda model: flip(model.get_layer("frozen").kernel),
    "optimizer": lambda model: flip(model.optimizer.variables[-1]),
    "nan": lambda model: spoil(model.get_layer("last").kernel),
    "nan average": lambda model: spoil(model.get_layer("norm").moving_mean),
}
ends = {name: fit(name, disturb, checkpoint_every=2) for name, disturb in CASES.items()}
ends["undisturbed"] = fit("undisturbed", checkpoint_every=2)
ends["weight, again"] = fit("weight", checkpoint_every=2)
ends["frozen, at the end"] = fit("frozen at the end", CASES["frozen"], validation=(X, Y))
ends["bfloat16"] = fit("bfloat16", build=in_bfloat16)
ends["infinite by design"] = fit("infinite", build=lambda: model(-np.inf))
ends["between saves"] = fit("between saves", CASES["weight"], check_every=1)
(FOLDER / f"ends.{RANK}.json").write_text(json.dumps(ends), encoding="utf-8")
