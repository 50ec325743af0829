"""Sums of a step's gradients and metrics over all ranks, on the device that computed the tensors.

Decides: which tensors share a reduction. Never: how tensors travel; the collectives do.

    sums = device_all_reduce(collectives, gradients, metrics, compression="none")      # in a compiled step

Each bucket of gradients is one reduction of its own name, which starts once the backward pass has computed the bucket.
The metrics travel in the last bucket. Gradients of some rows (`tf.IndexedSlices`) travel as whole matrices: agreeing on
the rows would cost a second collective and several waits for the host. That pays only if it saves hundreds of MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from distrain.distribution.buckets import buckets, dense_bytes
from distrain.distribution.indexed_slices import dense

Sums = tuple[list[Any], list[Any]]


class DeviceCollectives(Protocol):
    """The collectives that this module uses."""

    def grouped_sum(self, tensors: Sequence[Any], *, compression: str = "none") -> list[Any]:
        """Return each dense tensor summed over all ranks."""

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
    own = [dense(gradient) for gradient in gradients]
    sums = list(own)
    *first, last = buckets(dense_bytes(own))
    for bucket in first:
        totals = collectives.grouped_sum([own[number] for number in bucket], compression=compression)
        for number, total in zip(bucket, totals, strict=True):
            sums[number] = total
    in_last = [own[number] for number in last]
    if compression == "none" or not last:
        totals = collectives.grouped_sum([*in_last, *metrics])
    else:  # metrics always travel in full precision
        totals = [*collectives.grouped_sum(in_last, compression=compression), *collectives.grouped_sum(metrics)]
    for number, total in zip(last, totals, strict=False):
        sums[number] = total
    return sums, totals[len(last) :]
