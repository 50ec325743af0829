"""Trains with an optimizer and a metric that the script made before `distrain.fit`; prints replicas and weights."""

from __future__ import annotations

import json
import sys
from typing import Any

import keras
import numpy as np

import distrain

rng = np.random.default_rng(0)
x = rng.normal(size=(43, 4)).astype("float32")
y = x.sum(1, keepdims=True)


def build() -> keras.Model:
    """Return a linear model of fixed start weights."""
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="zeros")])


optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
optimizer.exclude_from_weight_decay(var_names=["kernel"])
settings: dict[str, Any] = {"devices": sys.argv[1]} if len(sys.argv) > 1 else {}
metrics = [keras.metrics.MeanAbsoluteError()]
settings |= {"epochs": 3, "global_batch_size": 12, "seed": 5, "jit_compile": False}
result = distrain.fit(build, (x, y), loss="mse", optimizer=optimizer, metrics=metrics, **settings)
if distrain.is_chief():
    weights = [weight.tolist() for weight in result.model.get_weights()]
    print(json.dumps({"replicas": result.summary["num_replicas"], "weights": weights, "last": result.history[-1]}))
