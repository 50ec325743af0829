"""Arrays that a file stores in chunks, as columns.

Decides: which chunks are small enough to be read. Never: reads a file.

    >>> chunked_column((1000, 28, 28), np.dtype(">f4"), (100, 28, 28), num_bytes=10**6)
    Column(rows=1000, dtype=dtype('float32'), shape=(28, 28), stored_rows=100, problem='')
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from distrain.formats.columns import Column, expansion

MAX_CHUNK_BYTES = 2**30  # a small file can declare a chunk, or a row, of any size


def chunked_column(shape: Sequence[int], dtype: np.dtype[Any], chunks: Sequence[int] | None, num_bytes: int) -> Column:
    """Return the column of an array.

    Args:
        shape: shape of the array, with at least one axis.
        dtype: dtype of its values.
        chunks: shape of a chunk; None if the values stand one after the other.
        num_bytes: bytes of the file.
    """
    largest = max(math.prod(chunks or ()), math.prod(shape[1:])) * dtype.itemsize
    if largest > MAX_CHUNK_BYTES:
        return Column(
            shape[0],
            problem=f"has rows or chunks of {largest / 2**20:,.0f} MiB, and at most "
            f"{MAX_CHUNK_BYTES / 2**20:,.0f} MiB are read at once. Write it in smaller chunks.",
        )
    if problem := expansion(shape[0], num_bytes):
        return Column(shape[0], problem=problem)
    return Column(shape[0], dtype.newbyteorder("="), tuple(shape[1:]), chunks[0] if chunks else 1)
