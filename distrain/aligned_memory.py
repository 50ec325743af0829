"""Memory that TensorFlow takes over as it is.

Decides: where an array begins. Never: what is in it.

    gradient = aligned_empty((20_000, 64), np.float32)      # returned from a tf.numpy_function: not copied
    features = aligned_copy(features)                       # the same for arguments of a step
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: TensorFlow takes over NumPy arrays that begin at a multiple of it, and copies others


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array of this shape and dtype whose values are not set, in one piece."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -address_of(memory) % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def aligned_copy(array: np.ndarray) -> np.ndarray:
    """An array of the same values."""
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def address_of(array: np.ndarray) -> int:
    """Where an array begins in memory."""
    return int(array.__array_interface__["data"][0])  # three times as fast as `ctypes.data`


def rounded_up(number: int, step: int = ALIGNMENT) -> int:
    """The least multiple of `step` that is not below `number`."""
    return -(-number // step) * step
