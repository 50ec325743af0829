"""Memory that TensorFlow takes over as it is.

Decides: where an array begins. Never: what is in it.

    gradient = aligned_empty((20_000, 64), np.float32)      # returned from a tf.numpy_function: not copied
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
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def rounded_up(number: int, step: int = ALIGNMENT) -> int:
    """The least multiple of `step` that is not below `number`."""
    return -(-number // step) * step
