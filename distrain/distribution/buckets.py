"""Which gradients share a reduction: fixed buckets, so that a reduction may start while other gradients are computed.

Decides: the tensors of each bucket, and the order of the buckets. Never: how a bucket is reduced.

    >>> from distrain.distribution.buckets import buckets
    >>> buckets([3, 4, 5, 1], limit=6)             # bytes of the gradients, in the order of the variables
    [[2, 3], [1], [0]]

The backward pass computes the gradients of the last layers first, so the buckets begin at the last variable. The sizes
alone decide which tensors share a reduction and at which place. So the order in which numbers add up is fixed, and a
run gives the same bits each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

# PyTorch's DistributedDataParallel uses 25 MiB too. Smaller buckets wait for each other, larger ones start later.
BUCKET_BYTES = 25 * 2**20


def buckets(sizes: Sequence[int], *, limit: int = BUCKET_BYTES) -> list[list[int]]:
    """Return the numbers of the tensors of each bucket: the buckets from the last tensor on, each ascending.

    Args:
        sizes: bytes of each tensor.
        limit: bytes of a bucket. Only a bucket of one tensor may exceed the limit.
    """
    found: list[list[int]] = [[]]
    filled = 0
    for number in range(len(sizes) - 1, -1, -1):
        if found[-1] and filled + sizes[number] > limit:
            found.append([])
            filled = 0
        found[-1].insert(0, number)
        filled += sizes[number]
    return found


def dense_bytes(tensors: Iterable[Any]) -> list[int]:
    """Return the bytes of each tensor, or of the whole tensor of which `tf.IndexedSlices` are rows."""
    return [(tensor.shape.num_elements() or 0) * tensor.dtype.size for tensor in tensors]
