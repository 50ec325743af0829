"""Optimizers and metrics that a script makes before `distrain.fit`, when TensorFlow has fixed its devices."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from commands import SYSTEM, run_python

from distrain.data.shuffle import epoch_order


@pytest.fixture(scope="module")
def witness():
    """Weights after plain Keras' steps on the joint batches, in distrain's order."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(43, 4)).astype("float32")
    y = x.sum(1, keepdims=True)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    model.compile(optimizer, "mse", run_eagerly=True)
    for epoch in range(3):
        order = epoch_order(43, seed=5, epoch=epoch)
        for start in range(0, 43, 12):
            rows = order.examples(range(start, min(43, start + 12)))
            model.train_on_batch(x[rows], y[rows])
    return model.get_weights()


@pytest.mark.parametrize("devices", [None, "cpu:2", "cpu:3"])
def test_one_process_trains_with_the_very_object(devices, witness):
    done = run_python(SYSTEM / "programs" / "objects_made_before.py", *([devices] if devices else []))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["replicas"] == (int(devices[-1]) if devices else 1)
    assert ("take turns on one CPU device" in done.stderr) == bool(devices)
    assert result["last"].keys() == {"loss", "mean_absolute_error"}
    for own, wanted in zip(result["weights"], witness, strict=True):
        np.testing.assert_allclose(own, wanted, rtol=1e-5, atol=1e-6)
