"""Gradients and figures of a step summed over all ranks on the device that made them.

Decides: which rows of a gradient travel. Never: how tensors travel; the collectives do.

    sums = device_all_reduce(collectives, gradients, figures, compression="none")      # in a compiled step

Of a gradient that touches few rows of a large matrix (`tf.IndexedSlices`, as of an embedding) only the rows that any
rank touched travel: the ranks first agree on the union of the rows, then reduce these as one dense block, and all hold
bitwise the same sum. Where the union is nearly everything, the matrix travels as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import tensorflow as tf

from distrain.distribution.gradients import dense

# Above this share of the rows, bringing them together and apart again is thought to cost what it saves: not measured,
# as no GPU was at hand.
MAX_UNION = 0.75

Sums = tuple[list[Any], list[Any]]


class DeviceCollectives(Protocol):
    """What this module needs of a backend."""

    def grouped_sum(self, tensors: Sequence[Any], *, compression: str = "none") -> list[Any]:
        """Dense tensors summed over all ranks."""

    def maximum(self, tensor: Any) -> Any:
        """The greatest value at each place over all ranks."""


def device_all_reduce(
    collectives: DeviceCollectives, gradients: Sequence[Any], figures: Sequence[Any], *, compression: str
) -> Sums:
    """The sums over all ranks, of the gradients as dense tensors.

    Args:
        collectives: the backend.
        gradients: tensors, or `tf.IndexedSlices` of a known dense shape.
        figures: tensors.
        compression: "fp16" to let gradients travel in half precision; "none".
    """
    sparse = [gradient for gradient in gradients if isinstance(gradient, tf.IndexedSlices)]
    if not sparse:
        return _dense_sum(collectives, gradients, figures, compression)
    unions = _unions(collectives, sparse)
    num_rows = sum(int(union.shape[0]) for union in unions)
    num_touched = tf.add_n([tf.reduce_sum(tf.cast(union, tf.int32)) for union in unions])
    sums: Sums = tf.cond(
        tf.cast(num_touched, tf.float32) < MAX_UNION * num_rows,
        lambda: _sparse_sum(collectives, gradients, figures, unions, compression),
        lambda: _dense_sum(collectives, gradients, figures, compression),
    )
    for total, gradient in zip(sums[0], gradients, strict=True):
        total.set_shape(gradient.shape)
    return sums


def _dense_sum(
    collectives: DeviceCollectives, gradients: Sequence[Any], figures: Sequence[Any], compression: str
) -> Sums:
    return _grouped_sum(collectives, [dense(gradient) for gradient in gradients], figures, compression)


def _sparse_sum(
    collectives: DeviceCollectives,
    gradients: Sequence[Any],
    figures: Sequence[Any],
    unions: Sequence[Any],
    compression: str,
) -> Sums:
    rows = iter([tf.where(union) for union in unions])
    slots = iter([tf.cumsum(tf.cast(union, tf.int32)) - 1 for union in unions])
    rows_of = [next(rows) if isinstance(g, tf.IndexedSlices) else None for g in gradients]
    travelling = [
        gradient
        if rows is None
        else tf.math.unsorted_segment_sum(
            gradient.values, tf.gather(next(slots), gradient.indices), tf.shape(rows, tf.int64)[0]
        )
        for gradient, rows in zip(gradients, rows_of, strict=True)
    ]
    reduced, totals = _grouped_sum(collectives, travelling, figures, compression)
    sums = [
        total if rows is None else dense(tf.IndexedSlices(total, rows[:, 0], gradient.dense_shape))
        for gradient, rows, total in zip(gradients, rows_of, reduced, strict=True)
    ]
    return sums, totals


def _unions(collectives: DeviceCollectives, gradients: Sequence[Any]) -> list[Any]:
    """Of each matrix the rows that any rank touched, bool `[rows]`: one reduction of a byte a row."""
    touched = []
    for gradient in gradients:
        indices = tf.cast(gradient.indices, tf.int64)[:, tf.newaxis]
        none = tf.zeros(gradient.shape[:1], tf.uint8)
        touched.append(tf.tensor_scatter_nd_update(none, indices, tf.ones(tf.shape(indices)[:1], tf.uint8)))
    sizes = [int(mask.shape[0]) for mask in touched]
    return [mask > 0 for mask in tf.split(collectives.maximum(tf.concat(touched, axis=0)), sizes)]


def _grouped_sum(
    collectives: DeviceCollectives, gradients: Sequence[Any], figures: Sequence[Any], compression: str
) -> Sums:
    if compression == "none" or not gradients:
        totals = collectives.grouped_sum([*gradients, *figures])
        return totals[: len(gradients)], totals[len(gradients) :]
    reduced = collectives.grouped_sum(gradients, compression=compression)
    return reduced, collectives.grouped_sum(figures)  # figures are exact at any compression
