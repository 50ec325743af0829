"""Precision, recall and F1 of each class, from exact counts.

Decides: how counts become figures. Never: counts (`class_counts.py`).

    figures = class_figures(counts, ("no", "yes"))
    figures["classes"]["yes"]                # {"precision": 0.5, "recall": 0.25, "f1": 0.333, "support": 8}

The figures equal scikit-learn's `precision_recall_fscore_support(zero_division=0)`. Precision is 0 for a class that
is never predicted, and recall is 0 for a class without examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

MAX_CONFUSION_CLASSES = 100  # more classes have counts by class alone, since a matrix grows with their square


def class_figures(counts: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Return figures by class.

    Args:
        counts: either a matrix `[k, k]` for up to `MAX_CONFUSION_CLASSES` classes: examples of each class (row) by
            predicted class (column). Or `[3, k]` for more classes: right, predicted and existing examples.
        names: names of the k classes.

    Returns:
        `classes`: precision, recall, f1 and support by name. `macro_precision`, `macro_recall` and `macro_f1`: the
        means over all classes. The small matrix is also returned, as `confusion`.
    """
    figures: dict[str, Any] = {}
    if len(names) <= MAX_CONFUSION_CLASSES:
        figures["confusion"] = np.rint(counts).astype(np.int64).tolist()
        counts = np.stack([np.diagonal(counts), counts.sum(0), counts.sum(1)])
    return {**_by_name(counts, names), **figures}


def label_figures(counts: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Return figures by label, of examples that each have any number of labels.

    Args:
        counts: `[3, k]`: right, predicted and existing labels.
        names: names of the k labels.

    Returns:
        The same as `class_figures`, without a matrix. Besides, `micro_precision`, `micro_recall` and `micro_f1` count
        the labels of all examples together.
    """
    together = _by_name(counts.sum(axis=1, keepdims=True), [""])["classes"][""]
    micro = {f"micro_{name}": together[name] for name in ("precision", "recall", "f1")}
    return {**_by_name(counts, names), **micro}


def _by_name(counts: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Return the figures of each name, and their means."""
    right, predicted, support = np.rint(counts).astype(np.int64)
    precision, recall = right / np.maximum(predicted, 1), right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(predicted + support, 1)
    rows = zip(names, precision.tolist(), recall.tolist(), f1.tolist(), support.tolist(), strict=True)
    named = ("precision", "recall", "f1", "support")
    by_name = {name: dict(zip(named, values, strict=True)) for name, *values in rows}
    means = {"macro_precision": precision, "macro_recall": recall, "macro_f1": f1}
    return {"classes": by_name, **{name: float(values.mean()) for name, values in means.items()}}
