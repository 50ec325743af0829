"""Weights by class: each example weighs what its label's class weighs, as with `class_weight` of Keras' `fit`.

Decides: the class of a label, and the weight of an example. Never: how a loss uses the weight.

    counts = class_counts(examples)                              # {0: 90, 1: 10}, read without features
    weighted = class_weighted(examples, balanced_weights(counts))

    >>> balanced_weights({0: 90, 1: 10}) == {0: 100 / (2 * 90), 1: 100 / (2 * 10)}
    True

Keras weighs the training examples alone; do not weigh validation data.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from distrain.batch import Memory
from distrain.data.examples import Examples, RowNests, RowReader
from distrain.data.labels.labels import labels_between
from distrain.data.nests import is_nest, leaves
from distrain.errors import ConfigurationError

COUNTED_ROWS = 2**16  # labels that are read at a time


def class_weighted(examples: Examples, weights: Mapping[int, float]) -> Examples:
    """Return the examples with a weight for each, which is the weight of its class; other classes weigh 1.

    The class is a label `[n]` or `[n, 1]`, rounded, or the largest column of one-hot labels `[n, classes]`.

    Args:
        examples: examples with one array of labels and without weights.
        weights: finite weights >= 0 by class number.

    Raises:
        ConfigurationError: a weight or a class number is not valid, or the examples have weights or other labels.
    """
    table = _checked_table(weights)
    _, labels, own_weights = examples.load(np.array([[0, 1]]), np.zeros(1, np.int64))(0, 1)
    if leaves(own_weights):
        raise ConfigurationError(
            "class_weight and sample weights are given together, which Keras refuses: multiply the class weights into "
            "the sample weights."
        )
    _check_labels(labels)

    def load(spans: np.ndarray, indices: np.ndarray, memory: Memory = np.empty, epoch: int = 0) -> RowReader:
        read_rows = examples.load(spans, indices, memory, epoch)

        def read(start: int, stop: int) -> RowNests:
            features, labels, _ = read_rows(start, stop)
            return features, labels, _weights_of(classes_of(labels), table)

        return read

    digest = hashlib.sha256(f"{examples.digest}{sorted(table.items())}".encode()).hexdigest()
    return replace(examples, load=load, digest=digest)


def balanced_weights(counts: Mapping[int, int]) -> dict[int, float]:
    """Return weights that give each class the same total: n / (classes * count), as scikit-learn's "balanced"."""
    present = {int(label): int(count) for label, count in counts.items() if count > 0}
    total = sum(present.values())
    return {label: total / (len(present) * count) for label, count in present.items()}


def class_counts(examples: Examples) -> dict[int, int]:
    """Return the number of examples of each class, by class number; reads labels alone, a few thousand at a time.

    Raises:
        ConfigurationError: the examples have no labels, several, or labels of no class.
    """
    _check_labels(labels_between(examples, 0, 1))
    counts: Counter[int] = Counter()
    for start in range(0, examples.num_examples, COUNTED_ROWS):
        labels = labels_between(examples, start, min(start + COUNTED_ROWS, examples.num_examples))
        classes, numbers = np.unique(classes_of(labels), return_counts=True)
        counts.update(dict(zip(classes.tolist(), numbers.tolist(), strict=True)))
    return dict(sorted(counts.items()))


def classes_of(labels: np.ndarray) -> np.ndarray:
    """Return the class of each label as Keras finds it, int32 `[b]`."""
    if labels.ndim == 2:
        labels = labels[:, 0] if labels.shape[1] == 1 else labels.argmax(axis=1)
    return np.round(labels.astype(np.float64)).astype(np.int32)


def _weights_of(classes: np.ndarray, table: Mapping[int, float]) -> np.ndarray:
    """Return the weight of each example, float64 `[b]`: Keras rounds it to its own precision."""
    present, index = np.unique(classes, return_inverse=True)
    return np.array([table.get(label, 1.0) for label in present.tolist()], np.float64)[index]


def _check_labels(labels: Any) -> None:
    if is_nest(labels):
        several = "has several labels" if labels else "has no labels"
        raise ConfigurationError(
            f"class_weight needs one label per example, but the data {several}: weigh the examples."
        )
    if labels.ndim > 2:
        raise ConfigurationError(
            f"class_weight needs labels [n], [n, 1] or one-hot [n, classes], but the labels have {labels.ndim} axes: "
            "weigh the examples."
        )


def _checked_table(weights: Any) -> dict[int, float]:
    if not isinstance(weights, Mapping):
        raise ConfigurationError(
            f"class_weight is {weights!r}; give a dict of weights by class number, as {{0: 1, 1: 5}}."
        )
    for label, weight in weights.items():
        is_class = isinstance(label, (int, np.integer))
        if not is_class or not isinstance(weight, (int, float, np.number)) or not 0 <= weight < math.inf:
            raise ConfigurationError(
                f"class_weight has {label!r}: {weight!r}; give class numbers from 0 and finite weights >= 0."
            )
    return {int(label): float(weight) for label, weight in weights.items()}
