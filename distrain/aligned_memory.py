"""Arrays whose memory TensorFlow takes over without a copy.

Decides: where an array begins. Never: what an array holds.

    >>> from distrain.aligned_memory import ALIGNMENT, address_of, aligned_empty
    >>> gradient = aligned_empty((20_000, 64), "float32")
    >>> gradient.shape, address_of(gradient) % ALIGNMENT
    ((20000, 64), 0)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: TensorFlow takes over NumPy arrays that begin at a multiple of it, and copies others


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return a contiguous array of this shape and dtype, whose values are not set."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -address_of(memory) % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


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
