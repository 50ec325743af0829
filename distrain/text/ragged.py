"""Ragged rows of numbers on disk: appended to, then read from the start in blocks.

Decides: the two files, and how many rows make a block. Never: what the numbers mean.

    file = RaggedFile(folder, "tokens", np.int32)
    file.append(np.array([0, 2, 3]), np.array([7, 8, 9], np.int32))      # rows [7, 8] and [9]
    [(row_splits, values)] = file.blocks()
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

BLOCK_VALUES = 2**16  # numbers in a block: 256 KiB of int32 fit into a processor's second-level cache
_LENGTHS_READ = 2**18  # row lengths read at a time: 1 MiB


class RaggedFile:
    """Ragged rows on disk.

    The calls of `append` do not affect how `blocks` cuts the rows. Existing files are emptied.

    Args:
        directory: an existing folder.
        name: stem of the two files in it.
        dtype: dtype of the values.
    """

    def __init__(self, directory: Path, name: str, dtype: Any = np.int32) -> None:
        self._lengths = Path(directory) / f"{name}.lengths"
        self._values = Path(directory) / f"{name}.values"
        self._dtype = dtype
        for path in (self._lengths, self._values):
            path.write_bytes(b"")

    def append(self, row_splits: np.ndarray, values: np.ndarray) -> None:
        """Add rows: their row splits, int64 `[n + 1]` from 0, and their values `[row_splits[-1]]`."""
        append_array(self._lengths, np.diff(row_splits).astype(np.int32))
        append_array(self._values, np.ascontiguousarray(values, self._dtype))

    def blocks(self, at_once: int = BLOCK_VALUES) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (row splits int64 from 0, values) of all rows in order: at most `at_once` values, or one longer row."""
        with self._lengths.open("rb") as lengths_file, self._values.open("rb") as values_file:
            while len(lengths := read_array(lengths_file, np.int32, _LENGTHS_READ)):
                ends = lengths.cumsum(dtype=np.int64)
                start, done = 0, 0
                while start < len(ends):
                    stop = max(start + 1, int(np.searchsorted(ends, done + at_once, side="right")))
                    row_splits = np.concatenate([[0], ends[start:stop] - done])
                    yield row_splits, read_array(values_file, self._dtype, int(row_splits[-1]))
                    start, done = stop, int(ends[stop - 1])


def append_array(path: Path, array: np.ndarray) -> None:
    """Append an array's numbers to a file."""
    with path.open("ab") as file:
        file.write(array.data)


def map_array(path: Path, dtype: Any) -> np.ndarray:
    """Map the numbers of a file into memory."""
    if not path.stat().st_size:  # the system cannot map an empty file
        return np.empty(0, dtype)
    # Mode "c" makes a writable array. For a read-only array numba would compile each kernel once more.
    return np.memmap(path, dtype, mode="c").view(np.ndarray)


def read_array(file: IO[bytes], dtype: Any, count: int) -> np.ndarray:
    """Return the next `count` numbers of an open file, or fewer at the file's end."""
    return np.fromfile(file, dtype, count)
