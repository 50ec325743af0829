"""Sums of a step's gradients and metrics over all ranks, on the device that computed the tensors.

Decides: which rows of a gradient travel. Never: how tensors travel; the collectives do.

    sums = device_all_reduce(collectives, gradients, metrics, compression="none")      # in a compiled step

The gradient of an embedding touches few rows of a large matrix (`tf.IndexedSlices`). Of such a matrix only rows travel
that some rank touched. The ranks first agree on the union of the rows, then reduce these rows as one dense block. All
ranks hold bitwise the same sum. If the union is nearly the whole matrix, the matrix travels whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import tensorflow as tf

from distrain.distribution.gradients import dense

# Fraction of the rows above which all rows travel: gathering and scattering then cost what they save. A guess, as no
# GPU was available to measure.
MAX_UNION = 0.75

Sums = tuple[list[Any], list[Any]]


class DeviceCollectives(Protocol):
    """The collectives that this module uses."""

    def grouped_sum(self, tensors: Sequence[Any], *, compression: str = "none") -> list[Any]:
        """Return each dense tensor summed over all ranks."""

    def maximum(self, tensor: Any) -> Any:
        """Return the elementwise maximum over all ranks."""

    def gather(self, tensor: Any) -> Any:
        """Return the rows of all ranks, rank after rank."""


def device_all_reduce(
    collectives: DeviceCollectives, gradients: Sequence[Any], metrics: Sequence[Any], *, compression: str
) -> Sums:
    """Return the sums over all ranks, gradients as dense tensors.

    Args:
        collectives: sums tensors over the ranks.
        gradients: tensors, or `tf.IndexedSlices` of a known dense shape.
        metrics: tensors.
        compression: "fp16" sends gradients in half precision; "none" in their own.
    """
    sparse = [gradient for gradient in gradients if isinstance(gradient, tf.IndexedSlices)]
    if not sparse:
        return _dense_sum(collectives, gradients, metrics, compression)
    unions = _unions(collectives, sparse)
    num_rows = sum(int(union.shape[0]) for union in unions)
    num_touched = tf.add_n([tf.reduce_sum(tf.cast(union, tf.int32)) for union in unions])
    sums: Sums = tf.cond(
        tf.cast(num_touched, tf.float32) < MAX_UNION * num_rows,
        lambda: _sparse_sum(collectives, gradients, metrics, unions, compression),
        lambda: _dense_sum(collectives, gradients, metrics, compression),
    )
    for total, gradient in zip(sums[0], gradients, strict=True):
        total.set_shape(gradient.shape)
    return sums


def _dense_sum(
    collectives: DeviceCollectives, gradients: Sequence[Any], metrics: Sequence[Any], compression: str
) -> Sums:
    return _grouped_sum(collectives, [dense(gradient) for gradient in gradients], metrics, compression)


def _sparse_sum(
    collectives: DeviceCollectives,
    gradients: Sequence[Any],
    metrics: Sequence[Any],
    unions: Sequence[Any],
    compression: str,
) -> Sums:
    rows = iter([tf.where(union) for union in unions])
    indices = iter([tf.cumsum(tf.cast(union, tf.int32)) - 1 for union in unions])
    rows_of = [next(rows) if isinstance(g, tf.IndexedSlices) else None for g in gradients]
    packed = [
        gradient
        if rows is None
        else tf.math.unsorted_segment_sum(
            gradient.values, tf.gather(next(indices), gradient.indices), tf.shape(rows, tf.int64)[0]
        )
        for gradient, rows in zip(gradients, rows_of, strict=True)
    ]
    reduced, totals = _grouped_sum(collectives, packed, metrics, compression)
    sums = [
        total if rows is None else dense(tf.IndexedSlices(total, rows[:, 0], gradient.dense_shape))
        for gradient, rows, total in zip(gradients, rows_of, reduced, strict=True)
    ]
    return sums, totals


def _unions(collectives: DeviceCollectives, gradients: Sequence[Any]) -> list[Any]:
    """Return for each matrix the rows that any rank touched, bool `[rows]`, by one reduction of a byte a row."""
    touched = []
    for gradient in gradients:
        indices = tf.cast(gradient.indices, tf.int64)[:, tf.newaxis]
        none = tf.zeros(gradient.shape[:1], tf.uint8)
        touched.append(tf.tensor_scatter_nd_update(none, indices, tf.ones(tf.shape(indices)[:1], tf.uint8)))
    sizes = [int(mask.shape[0]) for mask in touched]
    return [mask > 0 for mask in tf.split(collectives.maximum(tf.concat(touched, axis=0)), sizes)]


def _grouped_sum(
    collectives: DeviceCollectives, gradients: Sequence[Any], metrics: Sequence[Any], compression: str
) -> Sums:
    if compression == "none" or not gradients:
        totals = collectives.grouped_sum([*gradients, *metrics])
        return totals[: len(gradients)], totals[len(gradients) :]
    reduced = collectives.grouped_sum(gradients, compression=compression)
    return reduced, collectives.grouped_sum(metrics)  # metrics always travel in full precision
