"""Layers, models and callbacks that a user may write: with states, losses and metrics of their own.

Decides: nothing about their training. Never: builds a case; `odd_cases.py` does.

    keras.Sequential([keras.Input((4,)), RunningMean(), keras.layers.Dense(1)])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

LAYERS, METRICS, OPS = keras.layers, keras.metrics, keras.ops


class Counter(LAYERS.Layer):
    """Counts its calls in training."""

    def build(self, shape: Any) -> None:
        self.calls = self.add_weight(name="calls", shape=(), dtype="int64", initializer="zeros", trainable=False)

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            self.calls.assign_add(1)
        return x


class RunningMean(LAYERS.Layer):
    """Keeps a running mean of its inputs, and adds it."""

    def build(self, shape: Any) -> None:
        self.mean = self.add_weight(name="mean", shape=(shape[-1],), initializer="zeros", trainable=False)

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            self.mean.assign(0.9 * self.mean + 0.1 * OPS.mean(x, axis=0))
        return x - self.mean


class Centred(LAYERS.Layer):
    """Subtracts the mean of the batch while it trains."""

    def call(self, x: Any, training: bool = False) -> Any:
        return x - OPS.mean(x, axis=0, keepdims=True) if training else x


class Watching(LAYERS.Layer):
    """Holds a metric of its own, which counts its inputs."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.watched = METRICS.Mean(name="watched")

    def call(self, x: Any) -> Any:
        self.watched.update_state(OPS.mean(OPS.abs(x), axis=-1))
        return x


class Added(LAYERS.Layer):
    """Adds a reduction of its squared inputs to the loss."""

    def __init__(self, reduction: str = "mean", **more: Any) -> None:
        super().__init__(**more)
        self.reduction = reduction

    def call(self, x: Any) -> Any:
        self.add_loss(0.01 * getattr(OPS, self.reduction)(OPS.square(x)))
        return x


class Nest(LAYERS.Layer):
    """A layer inside a layer."""

    def __init__(self, inner: Any, **more: Any) -> None:
        super().__init__(**more)
        self.inner = inner

    def call(self, x: Any) -> Any:
        return self.inner(x)


class Opaque(keras.Model):
    """A model whose arguments no configuration can hold."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function
        self.hidden, self.out = LAYERS.Dense(5), LAYERS.Dense(1)

    def call(self, x: Any) -> Any:
        return self.out(self.function(self.hidden(x)))


class OwnLoss(keras.Model):
    """A model with a loss and figures of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.out = LAYERS.Dense(1)
        self.error = METRICS.Mean(name="error")

    def call(self, x: Any) -> Any:
        return self.out(x)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> Any:
        loss = super().compute_loss(x, y, y_pred, sample_weight)
        self.error.update_state(OPS.abs(y - y_pred), sample_weight=None)
        return loss + 0.1 * OPS.mean(OPS.abs(y_pred))


class Switch(keras.callbacks.Callback):
    """Freezes a layer after an epoch."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.layers[0].trainable = False


def vector(y_true: Any, y_pred: Any) -> Any:
    """Return a number per output."""
    return OPS.abs(y_true - y_pred)
