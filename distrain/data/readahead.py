"""Arrays in files that are mapped into memory, and what the system is told of their use.

Decides: what is read from disk before it is asked for. Never: what is in it, or whether it stays in memory.

    columns = np.lib.format.open_memmap("train-00000.columns.npy", mode="r")
    read_on_request(columns)
    read_ahead(columns, [(100, 356), (9000, 9256)])          # returns at once

Of a mapped file the system reads what a program touches, when it does, with what lies around it (Linux: 128 KiB or
more). In a shuffled epoch a program would wait for the disk at each run, for much that it does not want. It knows what
comes next, and says so here. What a program sees does not change; arrays that lie in memory are left alone.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from contextlib import suppress

import numpy as np

from distrain.aligned_memory import address_of


def read_on_request(array: np.ndarray) -> None:
    """Let the system read no more of the file than what is touched or read ahead."""
    mapping = _mapping_of(array)
    if mapping is not None:
        with suppress(OSError):  # a file system may not know of it
            mapping.madvise(mmap.MADV_RANDOM)


def read_ahead(array: np.ndarray, runs: Iterable[tuple[int, int]]) -> None:
    """Let the system begin to read elements start up to stop of each run, along the first axis, from disk."""
    mapping = _mapping_of(array)
    if mapping is None or not array.flags.c_contiguous:
        return
    origin = address_of(array) - address_of(np.frombuffer(mapping, np.uint8))
    width = array.strides[0]
    with suppress(OSError):
        for start, stop in runs:
            if start < stop:
                first = (origin + start * width) & -mmap.PAGESIZE
                mapping.madvise(mmap.MADV_WILLNEED, first, origin + stop * width - first)


def _mapping_of(array: np.ndarray) -> mmap.mmap | None:
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner if isinstance(owner, mmap.mmap) else None
