"""Arrays whose memory TensorFlow takes over without a copy.

Decides: where an array begins, and which memory an array reuses. Never: what an array holds.

    >>> from distrain.aligned_memory import ALIGNMENT, address_of, aligned_empty
    >>> gradient = aligned_empty((20_000, 64), "float32")
    >>> gradient.shape, address_of(gradient) % ALIGNMENT
    ((20000, 64), 0)

Every step allocates large arrays of the same sizes. The C library returns freed large blocks to the system, and the
next step takes page faults: 1 ms for a gradient of 5 MB. So this module keeps large blocks for reuse.
"""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: TensorFlow takes over NumPy arrays that begin at a multiple of it, and copies others
MIN_REUSED_BYTES = 2**18  # below, the C library keeps freed memory by itself
MAX_KEPT_BLOCKS = 2  # blocks kept of one size: TensorFlow releases an array one step late

_free: dict[int, list[np.ndarray]] = {}


class _Loan:
    """Owns a block while any view of the block lives."""

    def __init__(self, block: np.ndarray) -> None:
        self.__array_interface__ = block.__array_interface__
        weakref.finalize(self, _give_back, block)


def _give_back(block: np.ndarray) -> None:
    kept = _free.setdefault(block.nbytes, [])
    if len(kept) < MAX_KEPT_BLOCKS:
        kept.append(block)


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return a contiguous array of this shape and dtype, whose values are not set."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8) if size < MIN_REUSED_BYTES else _reused(size + ALIGNMENT)
    start = -address_of(memory) % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _reused(num_bytes: int) -> np.ndarray:
    size = 1 << (num_bytes - 1).bit_length()  # a power of two, so that few sizes occur
    kept = _free.get(size)
    return np.asarray(_Loan(kept.pop() if kept else np.empty(size, np.uint8)))


def aligned_copy(array: np.ndarray) -> np.ndarray:
    """Return an aligned array of the same values."""
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def address_of(array: np.ndarray) -> int:
    """Return the address of an array's first byte."""
    return int(array.__array_interface__["data"][0])  # three times as fast as `ctypes.data`


def rounded_up(number: int, step: int = ALIGNMENT) -> int:
    """Return the least multiple of `step` that is not below `number`."""
    return -(-number // step) * step
