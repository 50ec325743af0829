"""Rows of one part of a prepared data set, read from memory-mapped shard files.

Decides: when a shard counts as damaged, and which rows are read from it. Never: what a feature means.

    rows = open_dataset(folder).parts["train"].read(1000, 1128)

Everything that is read is checked to be in range, as row kernels index memory by it.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from distrain.batch import Memory
from distrain.data.readahead import read_ahead, read_on_request
from distrain.data.rows import Rows, Span, concatenate_rows, pick_rows, span_lengths
from distrain.errors import DataError

ARRAY_DTYPES = {"row_splits": np.int64, "columns": np.int32, "values": np.float32, "labels": np.int32}


@dataclass(frozen=True)
class ShardFile:
    """One array of one shard: its file name, size in bytes and CRC-32."""

    name: str
    bytes: int
    crc32: int


@dataclass(frozen=True)
class Shard:
    """Rows `first_row` up to `first_row + num_rows` of a part; `files` by array name."""

    first_row: int
    num_rows: int
    files: Mapping[str, ShardFile]


def crc32_of(path: Path) -> int:
    """CRC-32 of a file, read in pieces of 1 MiB."""
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(2**20):
            checksum = zlib.crc32(piece, checksum)
    return checksum


def _large_arrays(rows: Rows) -> list[np.ndarray]:
    return [array for array in (rows.columns, rows.values) if array is not None]


@dataclass(frozen=True)
class Part:
    """The training or the test rows of a data set."""

    directory: Path
    name: str
    kind: str
    num_features: int
    num_classes: int
    num_rows: int
    shards: Sequence[Shard]
    _arrays: dict[int, Rows] = field(default_factory=dict, repr=False)

    @cached_property
    def labels(self) -> np.ndarray:
        """All labels, int32 `[num_rows]`."""
        if not self.shards:
            return np.zeros(0, np.int32)
        return np.concatenate([self._open(number).labels for number in range(len(self.shards))])

    def row_lengths(self) -> np.ndarray:
        """Number of columns of every row, int64 `[num_rows]`."""
        return self.lengths(np.array([[0, self.num_rows]]))

    def lengths(self, runs: np.ndarray) -> np.ndarray:
        """Number of columns of every row of runs (start, stop), int64; the rows themselves are not read."""
        return span_lengths(span for _, span in self._spans(runs))

    def read(self, start: int, stop: int) -> Rows:
        """Rows `start` up to `stop` (views of the files where one shard holds them all), checked to be in range."""
        assert 0 <= start < stop <= self.num_rows
        run = np.array([[start, stop]])
        self.expect(run)
        return concatenate_rows([self._checked(*span) for span in self._spans(run)])

    def gather(self, runs: np.ndarray, chosen: np.ndarray, memory: Memory = np.empty) -> Rows:
        """Some of the rows of several runs, copied, and checked to be in range.

        Args:
            runs: int64 `[r, 2]`: (start, stop) of each run; read in this order.
            chosen: int64 `[k]`: row numbers within the runs one after the other, in the order wanted, none twice.
            memory: from where the block's columns and values come.
        """
        spans = list(self._spans(runs))
        rows, highest_column = pick_rows([span for _, span in spans], chosen, memory)
        if highest_column >= self.num_features or not self._are_labels(rows.labels):
            for shard, span in spans:
                self._checked(shard, span)  # says which file is damaged
        return rows

    def expect(self, runs: np.ndarray) -> None:
        """Let the system begin to read the rows of runs (start, stop) from disk, as they are asked for soon."""
        bounds: dict[int, tuple[Rows, list[tuple[int, int]]]] = {}
        for shard, (rows, first, last) in self._spans(runs):
            of_shard = bounds.setdefault(shard.first_row, (rows, []))
            of_shard[1].append((int(rows.row_splits[first]), int(rows.row_splits[last])))
        for rows, of_rows in bounds.values():
            for array in _large_arrays(rows):
                read_ahead(array, of_rows)

    def _spans(self, runs: np.ndarray) -> Iterator[tuple[Shard, Span]]:
        """Where the rows of runs (start, stop) lie."""
        for start, stop in runs.tolist():
            number = bisect_right(self._first_rows, start) - 1
            while start < stop:
                shard = self.shards[number]
                last = min(stop - shard.first_row, shard.num_rows)
                yield shard, Span(self._open(number), start - shard.first_row, last)
                start, number = shard.first_row + last, number + 1

    @cached_property
    def _first_rows(self) -> list[int]:
        return [shard.first_row for shard in self.shards]

    def _open(self, number: int) -> Rows:
        if number not in self._arrays:
            shard = self.shards[number]
            arrays = {name: self._map(name, file) for name, file in shard.files.items()}
            rows = Rows(arrays["row_splits"], arrays["columns"], arrays.get("values"), arrays["labels"])
            lengths_agree = (
                len(rows.labels) == shard.num_rows
                and len(rows.row_splits) == shard.num_rows + 1
                and rows.row_splits[0] == 0
                and rows.row_splits[-1] == len(rows.columns)
                and bool(np.all(np.diff(rows.row_splits) >= 0))
                and (rows.values is None or len(rows.values) == len(rows.columns))
            )
            if not lengths_agree:
                raise self._damaged(shard, "its arrays do not fit together")
            for array in _large_arrays(rows):
                read_on_request(array)
            self._arrays[number] = rows
        return self._arrays[number]

    def _map(self, array_name: str, file: ShardFile) -> np.ndarray:
        path = self.directory / file.name
        try:
            array = np.lib.format.open_memmap(path, mode="r")  # knows no pickle
        except Exception as error:  # over a damaged header NumPy raises nearly anything
            reason = str(error) or type(error).__name__
            raise DataError(f"{path} cannot be read ({reason}). Run 'distrain prepare' again.") from None
        if array.dtype != ARRAY_DTYPES[array_name] or array.ndim != 1:
            raise DataError(f"{path} holds {array.dtype} of rank {array.ndim}. Run 'distrain prepare' again.")
        return np.asarray(array)  # a plain one: memmap's own slices take ten times as long

    def _checked(self, shard: Shard, span: Span) -> Rows:
        rows = span.rows.slice(span.first, span.last)
        if rows.columns.size and not (rows.columns.min() >= 0 and rows.columns.max() < self.num_features):
            raise self._damaged(shard, f"a column is outside 0..{self.num_features - 1}")
        if not self._are_labels(rows.labels):
            raise self._damaged(shard, f"a label is outside 0..{self.num_classes - 1}")
        return rows

    def _are_labels(self, labels: np.ndarray) -> bool:
        return not labels.size or (labels.min() >= 0 and labels.max() < self.num_classes)

    def _damaged(self, shard: Shard, why: str) -> DataError:
        name = shard.files["columns"].name
        return DataError(f"{self.directory / name} is damaged: {why}. Run 'distrain prepare' again.")
