"""Rows of one part of a prepared data set, read from memory-mapped shard files.

Decides: which arrays a shard has, and when a shard counts as damaged. Never: what a feature means.

    rows = open_dataset(folder).parts["train"].read(1000, 1128)

Row kernels use the values of a shard as indices without bounds checks. A part therefore checks that every value that it
reads is in range.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from distrain.batch import Memory
from distrain.data.bus_errors import report_lost_pages
from distrain.data.prepared.fetched_folder import FetchedFolder
from distrain.data.prepared.rows import Rows, RowSpan, concatenate_rows, pick_rows, span_lengths
from distrain.data.readahead import read_ahead, read_on_request
from distrain.errors import DataError

ARRAY_DTYPES = {"row_splits": np.int64, "columns": np.int32, "values": np.float32}
LABEL_DTYPES = {"classification": np.int32, "multilabel": np.uint8, "regression": np.float32}


def array_dtypes(kind: str, task: str, *, has_weights: bool) -> dict[str, Any]:
    """Return the dtype of each array of a shard, by the name of the array."""
    dtypes: dict[str, Any] = {**ARRAY_DTYPES, "labels": LABEL_DTYPES[task]}
    if kind == "sequence":
        del dtypes["values"]
    return dtypes | {"weights": np.float32} if has_weights else dtypes


@dataclass(frozen=True)
class ShardFile:
    """One array of one shard: file name, size in bytes, CRC-32, and SHA-256 in hexadecimal digits."""

    name: str
    bytes: int
    crc32: int
    sha256: str


@dataclass(frozen=True)
class Shard:
    """Rows first_row .. first_row + num_rows - 1 of a part; `files` by array name."""

    first_row: int
    num_rows: int
    files: Mapping[str, ShardFile]


def _stamp(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _large_arrays(rows: Rows) -> list[np.ndarray]:
    return [array for array in (rows.columns, rows.values) if array is not None]


def _are_weights(weights: np.ndarray | None) -> bool:
    return weights is None or not weights.size or bool(weights.min() >= 0 and weights.max() < np.inf)


@dataclass(frozen=True)
class Part:
    """The training or the test rows of a data set.

    Attributes:
        directory: folder of the files.
        name: "train" or "test".
        kind: "ngram" or "sequence".
        num_features: exclusive upper bound of columns.
        num_classes: exclusive upper bound of labels.
        num_rows: rows of all shards.
        shards: the shards in order.
        task: "classification", "multilabel" or "regression".
        has_weights: whether each row has a weight.
        fetched: what fetches the files of a remote data set into `directory` before they are opened; else None.
    """

    directory: Path
    name: str
    kind: str
    num_features: int
    num_classes: int
    num_rows: int
    shards: Sequence[Shard]
    task: str = "classification"
    has_weights: bool = False
    fetched: FetchedFolder | None = None
    _arrays: dict[int, Rows] = field(default_factory=dict, repr=False)
    _stamps: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)

    def remember_files(self) -> None:
        """Refuse files from now on that replace the present ones, because shards are opened at their first use."""
        for shard in self.shards:
            for file in shard.files.values():
                with suppress(OSError, ValueError):  # opening the file names the fault
                    self._stamps[file.name] = _stamp(self.directory / file.name)

    def row_lengths(self) -> np.ndarray:
        """Number of columns of every row, int64 `[num_rows]`."""
        return self.lengths(np.array([[0, self.num_rows]]))

    def lengths(self, spans: np.ndarray) -> np.ndarray:
        """Number of columns of every row of `spans`, int64, without reading columns or values."""
        return span_lengths(span for _, span in self._row_spans(spans))

    def labels(self, start: int, stop: int) -> np.ndarray:
        """Labels of the rows start .. stop - 1 as `Rows` holds them, without reading columns or values.

        Raises:
            DataError: a label is out of range.
        """
        found = [np.zeros(0, np.int32)]
        for shard, (rows, first, last) in self._row_spans(np.array([[start, stop]])):
            found.append(rows.labels[first:last])
            if not self._are_labels(found[-1]):
                raise self._damaged(shard, self._label_fault)
        return np.concatenate(found[1:] or found)

    def read(self, start: int, stop: int) -> Rows:
        """Rows start .. stop - 1, with all values in range; views of the files if the rows lie in one shard."""
        assert 0 <= start < stop <= self.num_rows
        span = np.array([[start, stop]])
        self.will_need(span)
        return concatenate_rows([self._checked(*piece) for piece in self._row_spans(span)])

    def gather(self, spans: np.ndarray, indices: np.ndarray, memory: Memory = np.empty) -> Rows:
        """Copy some rows of several spans, with all values in range.

        Args:
            spans: int64 `[s, 2]`: (start, stop) of each span, in the order of reading.
            indices: int64 `[k]`: unique row indices into the concatenated spans, in output order.
            memory: allocator for columns and values.

        Raises:
            DataError: a column, a label or a weight is out of range.
        """
        row_spans = list(self._row_spans(spans))
        rows, max_column = pick_rows([span for _, span in row_spans], indices, memory)
        if max_column >= self.num_features or not self._are_labels(rows.labels) or not _are_weights(rows.weights):
            for shard, span in row_spans:
                self._checked(shard, span)  # raises an error that names the file
        return rows

    def will_need(self, spans: np.ndarray) -> None:
        """Ask the system to read the rows of `spans` from disk, ahead of their use."""
        entries: dict[int, tuple[Rows, list[tuple[int, int]]]] = {}
        if self.fetched is not None:  # opening a shard here would wait for its files
            self.fetched.want(self._file_names(spans))
            return
        for shard, (rows, start, stop) in self._row_spans(spans):
            _, shard_entries = entries.setdefault(shard.first_row, (rows, []))
            shard_entries.append((int(rows.row_splits[start]), int(rows.row_splits[stop])))
        for rows, shard_entries in entries.values():
            for array in _large_arrays(rows):
                read_ahead(array, shard_entries)

    def _row_spans(self, spans: np.ndarray) -> Iterator[tuple[Shard, RowSpan]]:
        """Yield the pieces of each span, int64 `[s, 2]`, cut where a shard ends."""
        if self.fetched is not None:
            self.fetched.want(self._file_names(spans))  # of all shards at once, as each waits for its own files
        for start, stop in spans.tolist():
            index = bisect_right(self._first_rows, start) - 1
            while start < stop:
                shard = self.shards[index]
                end = min(stop - shard.first_row, shard.num_rows)
                yield shard, RowSpan(self._open(index), start - shard.first_row, end)
                start, index = shard.first_row + end, index + 1

    def _file_names(self, spans: np.ndarray) -> list[str]:
        """Return the files of all shards that hold rows of `spans` and are not open yet."""
        first = np.searchsorted(self._first_rows, spans[:, 0], side="right") - 1
        last = np.searchsorted(self._first_rows, spans[:, 1] - 1, side="right") - 1
        indices = sorted({index for one, other in zip(first, last, strict=True) for index in range(one, other + 1)})
        needed = (self.shards[index] for index in indices if index not in self._arrays)
        return [file.name for shard in needed for file in shard.files.values()]

    @cached_property
    def _first_rows(self) -> list[int]:
        return [shard.first_row for shard in self.shards]

    def _open(self, index: int) -> Rows:
        if index not in self._arrays:
            shard = self.shards[index]
            if self.fetched is not None:
                self.fetched.fetch(file.name for file in shard.files.values())
            arrays = {name: self._map(name, file) for name, file in shard.files.items()}
            own = {name: arrays.get(name) for name in ("values", "weights")}  # which not each data set has
            rows = Rows(arrays["row_splits"], arrays["columns"], labels=arrays["labels"], **own)
            lengths_agree = (
                len(rows.labels) == shard.num_rows
                and len(rows.row_splits) == shard.num_rows + 1
                and rows.row_splits[0] == 0
                and rows.row_splits[-1] == len(rows.columns)
                and bool(np.all(np.diff(rows.row_splits) >= 0))
                and (rows.values is None or len(rows.values) == len(rows.columns))
                and (rows.weights is None or len(rows.weights) == shard.num_rows)
                and rows.labels.shape[1:] == ((-(-self.num_classes // 8),) if self.task == "multilabel" else ())
            )
            if not lengths_agree:
                raise self._damaged(shard, "its arrays do not fit together")
            for array in _large_arrays(rows):
                read_on_request(array)
            self._arrays[index] = rows
        return self._arrays[index]

    def _map(self, array_name: str, file: ShardFile) -> np.ndarray:
        path = self.directory / file.name
        try:
            array = np.lib.format.open_memmap(path, mode="r")  # never reads pickle
            stamp = _stamp(path)
        except PermissionError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}. Check your permissions.") from None
        except Exception as error:  # for a damaged header NumPy raises many types
            reason = str(error) or type(error).__name__
            raise DataError(f"{path} cannot be read ({reason}). Run 'distrain prepare' again.") from None
        expected = array_dtypes(self.kind, self.task, has_weights=self.has_weights)[array_name]
        if array.dtype != expected or array.ndim != 1 + (self.task == "multilabel" and array_name == "labels"):
            raise DataError(f"{path} holds {array.dtype} of rank {array.ndim}. Run 'distrain prepare' again.")
        if stamp != self._stamps.get(file.name, stamp):
            raise DataError(
                f"{path} was replaced while the data set was in use. Let nothing write into it meanwhile, then start "
                "the same command again."
            )
        report_lost_pages(array)
        return np.asarray(array)  # slicing a memmap takes ten times as long

    def _checked(self, shard: Shard, span: RowSpan) -> Rows:
        rows = span.rows.slice(span.start, span.stop)
        if rows.columns.size and not (rows.columns.min() >= 0 and rows.columns.max() < self.num_features):
            raise self._damaged(shard, f"a column is outside 0..{self.num_features - 1}")
        if not self._are_labels(rows.labels):
            raise self._damaged(shard, self._label_fault)
        if not _are_weights(rows.weights):
            raise self._damaged(shard, "a weight is negative or not finite")
        return rows

    def _are_labels(self, labels: np.ndarray) -> bool:
        if self.task == "multilabel" or not labels.size:  # bits beyond the last label are never read
            return True
        if self.task == "regression":
            return bool(np.isfinite(labels).all())
        return bool(labels.min() >= 0 and labels.max() < self.num_classes)

    @property
    def _label_fault(self) -> str:
        return (
            "a target is not finite" if self.task == "regression" else f"a label is outside 0..{self.num_classes - 1}"
        )

    def _damaged(self, shard: Shard, why: str) -> DataError:
        name = shard.files["columns"].name
        return DataError(f"{self.directory / name} is damaged: {why}. Run 'distrain prepare' again.")
