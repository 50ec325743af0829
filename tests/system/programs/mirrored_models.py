"""Trains on two logical devices by MirroredStrategy, and prints what differs from one device, as JSON."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import distrain
from distrain.errors import ConfigurationError

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
rng = np.random.default_rng(0)
x = rng.normal(size=(25, 3)).astype("float32")  # the last step of an epoch has one example, so one replica idles
y = x.sum(1, keepdims=True)
MIRRORED = {"strategy": "mirrored", "devices": "cpu:2"}


def linear(*layers: Any) -> keras.Model:
    """Return a linear model of fixed start weights, on these layers."""
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(1)])


def excluding() -> Any:
    """Return an optimizer that no configuration describes: it excludes kernels from decay, and has an own schedule."""
    optimizer = keras.optimizers.AdamW(Halving(), weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    return optimizer


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """An unregistered schedule."""

    def __call__(self, step: Any) -> Any:
        """Return the rate of a step."""
        return 0.02 * 0.5 ** keras.ops.cast(step, "float32")


class RunningMean(keras.layers.Layer):
    """Keeps a running mean of its inputs; no rule of TensorFlow joins the values of several devices."""

    def build(self, shape: Any) -> None:
        """Make the mean."""
        self.mean = self.add_weight(name="mean", shape=(shape[-1],), initializer="zeros", trainable=False)

    def call(self, x: Any, training: bool = False) -> Any:
        """Return the inputs."""
        if training:
            self.mean.assign(0.9 * self.mean + 0.1 * keras.ops.mean(x, axis=0))
        return x


def scaled() -> Any:
    """Return an optimizer within another."""
    return keras.optimizers.LossScaleOptimizer(excluding())


class Evaluating(keras.callbacks.Callback):
    """Evaluates and predicts after each epoch, on rows that do not divide by the devices."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[float]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keep loss, metric and outputs."""
        outputs = self.model.predict(x[:3], verbose=0)
        self.seen.append([*self.model.evaluate(x[:3], y[:3], verbose=0), *outputs[:, 0].tolist()])


def fit(build: Any, **settings: Any) -> Any:
    """Train two epochs."""
    fixed = {"epochs": 2, "global_batch_size": 12, "seed": 3, "verbose": 0, "jit_compile": False}
    return distrain.fit(build, (x, y), **fixed, **settings).model


def compiled_with(optimizer: Any) -> Any:
    """Return a function that builds a model compiled with an object made before."""

    def build() -> keras.Model:
        model = linear()
        model.compile(optimizer, "mse", metrics=["mae"])
        return model

    return build


def apart(model: Any, other: Any) -> float:
    """Return the largest difference of two models' weights."""
    return max(float(np.abs(a - b).max()) for a, b in zip(model.get_weights(), other.get_weights(), strict=True))


found: dict[str, Any] = {}
for make in (excluding, scaled):
    alone = fit(compiled_with(make()), strategy="single")
    found[f"{make.__name__}, given"] = apart(fit(linear, loss="mse", optimizer=make(), **MIRRORED), alone)
    mirrored = fit(compiled_with(make()), **MIRRORED)
    found[f"{make.__name__}, compiled"] = apart(mirrored, alone)
callbacks = [Evaluating(), Evaluating()]
for callback, settings in zip(callbacks, ({"strategy": "single"}, MIRRORED), strict=True):
    fit(linear, loss="mse", metrics=["mae"], callbacks=[callback], **settings)
found["in callbacks"] = [callback.seen for callback in callbacks]
for rows in (1, 3, 25):
    figures = [model.evaluate(x[:rows], y[:rows], verbose=0) for model in (mirrored, alone)]
    found[f"evaluate {rows}"] = float(np.abs(np.subtract(*figures)).max())
    predictions = mirrored.predict(x[:rows], verbose=0) - alone.predict(x[:rows], verbose=0)
    found[f"predict {rows}"] = float(np.abs(predictions).max())
try:
    mirrored.fit(x, y, verbose=0)
except ConfigurationError as error:
    found["fit"] = str(error)
averaging = fit(lambda: linear(RunningMean()), loss="mse", optimizer="sgd", **MIRRORED)
found["running means"] = [value.numpy().tolist() for value in averaging.layers[0].mean.value.values]
print(json.dumps(found))
