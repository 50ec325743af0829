"""Runs that meet a number that is not finite: not_finite.py FOLDER STRATEGY, on one process or under mpirun.

Each process writes FOLDER/ends.RANK.json: the exit code and the message of each run, and the weights after the run.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import distrain
from distrain.cluster.world import find_world
from distrain.errors import DistrainError

RANK = find_world(os.environ).rank
NUM_ROWS, GLOBAL_BATCH = 24, 8
ROW = 13  # in the second step, on the second of two replicas
FOLDER, STRATEGY = Path(sys.argv[1]), sys.argv[2]

rng = np.random.default_rng(0)
X = rng.normal(size=(NUM_ROWS, 3)).astype("f4")
Y = X.sum(1, keepdims=True)


def rows(value: float) -> np.ndarray:
    """Return the features with `value` in row `ROW`."""
    changed = X.copy()
    changed[ROW, 0] = value
    return changed


@tf.custom_gradient
def steep_at_seven(x: tf.Tensor) -> Any:
    """Return `x`, with a gradient that is not finite where `x` is 7."""
    return x, lambda slope: slope + tf.where(x == 7.0, np.nan, 0.0)


class SteepAtSeven(keras.layers.Layer):
    """`steep_at_seven` times a weight of 1, before other layers."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(3,), initializer="ones")

    def call(self, x: Any) -> Any:
        return steep_at_seven(x * self.scale)


def hiding() -> keras.Model:
    """Hide a NaN from the loss, but not from the gradient."""
    hide = keras.layers.Lambda(lambda x: tf.where(tf.math.is_finite(x), tf.nn.relu(x), 0.0))
    first, last = (keras.layers.Dense(units, kernel_initializer="ones", use_bias=False) for units in (4, 1))
    return keras.Sequential([keras.Input((3,)), first, hide, last])


def steep() -> keras.Model:
    last = keras.layers.Dense(1, kernel_initializer="ones", use_bias=False)
    return keras.Sequential([keras.Input((3,)), SteepAtSeven(), last])


def fit(run: str, x: np.ndarray, model: Any = hiding, **settings: Any) -> dict[str, Any]:
    """Train, without XLA, whose compilation takes half of the time; return how the run ended."""
    devices = {"devices": "cpu:2"} if STRATEGY == "mirrored" else {}
    settings = {"epochs": 1, "checkpoint_every": 1, "keep": 9, "jit_compile": False, **devices, **settings}
    optimizer = lambda: keras.optimizers.Adam(0.01)  # noqa: E731 - made once the devices are chosen
    fixed = {"loss": "mse", "optimizer": optimizer, "shuffle": False, "verbose": 0, "strategy": STRATEGY}
    try:
        result = distrain.fit(model, x=x, y=Y, run=FOLDER / run, global_batch_size=GLOBAL_BATCH, **fixed, **settings)
    except DistrainError as error:
        return {"code": error.exit_code, "message": str(error), "reporting_rank": error.reporting_rank}
    weights = [weight.tolist() for weight in result.model.get_weights()]
    return {"code": 0, "message": "", "weights": weights, "summary": result.summary}


ends = {
    "gradient": fit("gradient", rows(np.nan)),
    "own gradient": fit("own", rows(7), steep),
    "loss": fit("loss", rows(np.inf), steep),
    "skipped": fit("skipped", rows(np.nan), skip_nonfinite=1, jit_compile=True),
    "again": fit("skipped", rows(np.nan), skip_nonfinite=1, epochs=2, jit_compile=True),
    "in one call": fit("in one call", rows(np.nan), skip_nonfinite=1, steps_per_execution=3),
    "accumulated": fit("accumulated", rows(np.nan), skip_nonfinite=1, accumulation_steps=2),
}
(FOLDER / f"ends.{RANK}.json").write_text(json.dumps(ends), encoding="utf-8")
