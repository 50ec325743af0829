"""The upper part of a random model: an output, its labels, and the losses and metrics that suit them.

Decides: which losses and metrics exist for which labels. Never: layers below the output.

    head = HEADS["classes"]
    labels = head.labels(np.random.default_rng(0), 37, positions=0)
    outputs = head.output("a")(hidden)
    loss = head.losses[0]()
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

CLASSES = 3
IGNORED = -1  # a label that `ignore_class` leaves out

Rng = np.random.Generator
LOSSES, METRICS, OPS = keras.losses, keras.metrics, keras.ops


class Head(NamedTuple):
    """An output with its labels, losses and metrics.

    Attributes:
        output: layer name -> output layer.
        labels: (rng, n, positions) -> labels `[n, ...]`; 0 positions mean one label per example.
        losses: functions of a reduction that make a loss.
        metrics: functions that make a metric.
        positions: True if the labels need positions, False if they must not have any, None if both suits.
    """

    output: Callable[[str], Any]
    labels: Callable[[Rng, int, int], np.ndarray]
    losses: tuple[Callable[[str], Any], ...]
    metrics: tuple[Callable[[], Any], ...]
    positions: bool | None = None


class Quartic(keras.losses.Loss):
    """A loss of a user's own."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the mean of fourth powers over the last axis."""
        return OPS.mean((y_true - y_pred) ** 4, axis=-1)


class MeanOutput(keras.metrics.Mean):
    """A metric of a user's own: the mean output."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Add one number per example."""
        return super().update_state(OPS.mean(y_pred, axis=-1), sample_weight=sample_weight)


def absolute(y_true: Any, y_pred: Any) -> Any:
    """Return a loss, or a metric, of a user's own, as a function."""
    return OPS.mean(OPS.abs(y_true - y_pred), axis=-1)


def smooth(y_true: Any, y_pred: Any) -> Any:
    """Return a loss without a mean over the last axis, so that values are `[b, d]`."""
    return OPS.log(OPS.cosh(y_true - y_pred))


def _shape(n: int, positions: int, *more: int) -> tuple[int, ...]:
    return (n, positions, *more) if positions else (n, *more)


def _numbers(width: int) -> Callable[[Rng, int, int], np.ndarray]:
    return lambda rng, n, positions: rng.normal(size=_shape(n, positions, width)).astype(keras.config.floatx())


def _flat_numbers(rng: Rng, n: int, positions: int) -> np.ndarray:
    return rng.normal(size=_shape(n, positions)).astype(keras.config.floatx())


def _positive(rng: Rng, n: int, positions: int) -> np.ndarray:
    return rng.integers(0, 5, _shape(n, positions, 1)).astype(keras.config.floatx())


def _binary(*more: int) -> Callable[[Rng, int, int], np.ndarray]:
    return lambda rng, n, positions: rng.integers(0, 2, _shape(n, positions, *more))


def _classes(rng: Rng, n: int, positions: int) -> np.ndarray:
    return rng.integers(0, CLASSES, _shape(n, positions))


def _some_ignored(rng: Rng, n: int, positions: int) -> np.ndarray:
    classes = _classes(rng, n, positions)
    return np.where(rng.random(classes.shape) < 0.3, IGNORED, classes)


def _one_hot(rng: Rng, n: int, positions: int) -> np.ndarray:
    return np.eye(CLASSES, dtype=keras.config.floatx())[_classes(rng, n, positions)]


def _layer(width: int, activation: str | None) -> Callable[[str], Any]:
    return lambda name: keras.layers.Dense(width, activation, name=name)


# The first does not suit two numbers per example, the last no labels without a last axis: Keras broadcasts them.
REGRESSION_LOSSES: tuple[Callable[[str], Any], ...] = (
    lambda reduction: smooth,
    lambda reduction: "mse",
    lambda reduction: absolute,
    lambda reduction: LOSSES.Huber(0.5, reduction=reduction),
    lambda reduction: LOSSES.LogCosh(reduction=reduction),
    lambda reduction: LOSSES.MeanSquaredError(reduction=reduction),
    lambda reduction: Quartic(reduction=reduction),
)
REGRESSION_METRICS: tuple[Callable[[], Any], ...] = (
    lambda: "mae",
    lambda: "mse",
    lambda: absolute,
    lambda: METRICS.RootMeanSquaredError(),
    lambda: METRICS.LogCoshError(name="own_name"),
    lambda: MeanOutput(name="mean_output"),
)
# A function of a user's own broadcasts labels without a last axis to all pairs, in Keras as well.
SHIPPED_METRICS = tuple(REGRESSION_METRICS[number] for number in (0, 1, 3, 4))
BINARY_LOSSES: tuple[Callable[[str], Any], ...] = (
    lambda reduction: "binary_crossentropy",
    lambda reduction: LOSSES.BinaryCrossentropy(label_smoothing=0.1, reduction=reduction),
    lambda reduction: LOSSES.BinaryFocalCrossentropy(reduction=reduction),
)
BINARY_METRICS: tuple[Callable[[], Any], ...] = (
    lambda: "accuracy",
    lambda: "acc",
    lambda: METRICS.AUC(name="auc", num_thresholds=20),
    lambda: METRICS.Precision(name="precision"),
    lambda: METRICS.Recall(thresholds=[0.3, 0.6], name="recall"),
)
FLAT = REGRESSION_LOSSES[:-1]
SPARSE_LOSSES: tuple[Callable[[str], Any], ...] = (
    lambda reduction: "sparse_categorical_crossentropy",
    lambda reduction: LOSSES.SparseCategoricalCrossentropy(reduction=reduction),
)
SPARSE_METRICS: tuple[Callable[[], Any], ...] = (
    lambda: "accuracy",
    lambda: "sparse_categorical_accuracy",
    lambda: METRICS.SparseCategoricalCrossentropy(name="entropy"),
)
HEADS: dict[str, Head] = {
    "numbers": Head(_layer(1, None), _numbers(1), REGRESSION_LOSSES, REGRESSION_METRICS),
    "pairs of numbers": Head(_layer(2, None), _numbers(2), REGRESSION_LOSSES[1:], REGRESSION_METRICS),
    "numbers without a last axis": Head(_layer(1, None), _flat_numbers, FLAT, SHIPPED_METRICS, False),
    "counts": Head(
        _layer(1, "softplus"),
        _positive,
        (lambda reduction: "poisson", lambda reduction: LOSSES.Poisson(reduction=reduction)),
        (lambda: "mae", lambda: METRICS.Poisson()),
    ),
    "yes or no": Head(_layer(1, "sigmoid"), _binary(1), BINARY_LOSSES, BINARY_METRICS),
    "yes or no without a last axis": Head(_layer(1, "sigmoid"), _binary(), BINARY_LOSSES, BINARY_METRICS[:2], False),
    "classes": Head(_layer(CLASSES, "softmax"), _classes, SPARSE_LOSSES, SPARSE_METRICS),
    "one-hot classes": Head(
        _layer(CLASSES, "softmax"),
        _one_hot,
        (
            lambda reduction: "categorical_crossentropy",
            lambda reduction: LOSSES.CategoricalFocalCrossentropy(reduction=reduction),
            lambda reduction: LOSSES.KLDivergence(reduction=reduction),
        ),
        (lambda: "accuracy", lambda: METRICS.F1Score(name="f1"), lambda: METRICS.CategoricalCrossentropy()),
    ),
    "classes, some ignored": Head(
        _layer(CLASSES, None),
        _some_ignored,
        (
            lambda reduction: LOSSES.SparseCategoricalCrossentropy(
                from_logits=True, ignore_class=IGNORED, reduction=reduction
            ),
        ),
        (),
        positions=True,
    ),
}
