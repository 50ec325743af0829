"""Read-ahead of memory-mapped files.

Decides: which pages the system reads before a program needs them. Never: what the pages contain, or whether they stay
in memory.

    columns = np.lib.format.open_memmap("train-00000.columns.npy", mode="r")
    read_on_request(columns)
    read_ahead(columns, [(100, 356), (9000, 9256)])          # returns at once

By default Linux reads a mapped page on first access, plus at least 128 KiB around the page. In a shuffled epoch a
program would then wait for the disk at each span, and most of the bytes would be useless. The loader knows the next
spans, and announces them here. Arrays in memory are left unchanged.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from contextlib import suppress

import numpy as np

from distrain.aligned_memory import address_of


def read_on_request(array: np.ndarray) -> None:
    """Limit reading to pages that the program accesses, or that `read_ahead` names."""
    mapping = mapping_of(array)
    if mapping is not None:
        with suppress(OSError):  # some file systems do not support this advice
            mapping.madvise(mmap.MADV_RANDOM)


def read_ahead(array: np.ndarray, spans: Iterable[tuple[int, int]]) -> None:
    """Start reading elements start .. stop - 1 of each span, along the first axis, from disk."""
    mapping = mapping_of(array)
    if mapping is None or not array.flags.c_contiguous:
        return
    origin = address_of(array) - address_of(np.frombuffer(mapping, np.uint8))
    width = array.strides[0]
    with suppress(OSError):
        for start, stop in spans:
            if start < stop:
                first = (origin + start * width) & -mmap.PAGESIZE
                mapping.madvise(mmap.MADV_WILLNEED, first, origin + stop * width - first)


def mapping_of(array: object) -> mmap.mmap | None:
    """Return the map whose memory an array shows, or None."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array if isinstance(array, mmap.mmap) else None
