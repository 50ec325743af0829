"""Files as a source by position: the examples of several files, one file after the other.

Decides: which rows of which file an example is, and that all files fit together. Never: how a format stores its rows.

    source = FileSource(NpyArrays, paths, features=None, label=None, weight=None)
    features, labels = source.read(0, 256)

A process opens a file when it first reads the file. A pickled source holds names and numbers alone, so that worker
processes can use it. Threads take turns.
"""

from __future__ import annotations

import hashlib
import operator
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from distrain.data.nests import concatenated, map_nest
from distrain.errors import ConfigurationError, DataError, DistrainError
from distrain.formats.columns import Column, Names, Parts, assembled, check_row_shape, chosen_parts, names_of
from distrain.remote.local_copy import local_copy
from distrain.remote.path import RemotePath

MAX_OPEN_FILES = 32
_VERSION = 1  # of `identity`: other releases may read other values
_MAX_REASON = 200  # characters of a library's message


class StoredRows(Protocol):
    """One open file, or one open store, of any format."""

    @property
    def columns(self) -> Mapping[str, Column]:
        """All columns by name, in the order of the file."""

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, np.ndarray]:
        """Return the rows start .. stop - 1 of some columns, as arrays `[rows, ...]`."""

    def close(self) -> None:
        """Close the file, and release what was read ahead."""


class FileSource:
    """The examples of files, one file after the other.

    Args:
        open_file: opens one file.
        paths: the files.
        features: columns of the features; see `columns.py`.
        label: columns of the label.
        weight: column of the weight.
        max_open: files that stay open, with what was read ahead.

    Raises:
        DataError: a file cannot be read, or files do not fit together.
        ConfigurationError: a column does not exist.
    """

    def __init__(
        self,
        open_file: Callable[[Path], StoredRows],
        paths: Sequence[Path],
        *,
        features: Names | None = None,
        label: Names | None = None,
        weight: str | None = None,
        max_open: int = MAX_OPEN_FILES,
    ) -> None:
        self._open_file = open_file
        self._max_open = max_open
        self._paths = tuple(paths)
        self._forget_open_files()
        columns = self.opened(0).columns
        chosen = {"features": features, "label": label, "weight": weight}
        self._parts = _chosen_of(paths[0], columns, chosen)
        self._names = names_of(self._parts)
        self._columns = {name: columns[name] for name in self._names}
        self._shapes: dict[str, tuple[int, ...]] = {}  # of rows; of lists, only reading shows them
        counts = [self._checked_rows(index, chosen) for index in range(len(paths))]
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        if not len(self):
            raise DataError(f"{paths[0]} has no rows; training needs at least one example.")
        self.span_size = self._stored_rows(0)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, number: int) -> Any:
        """Return one example."""
        index = operator.index(number) + (len(self) if number < 0 else 0)
        if not 0 <= index < len(self):
            raise IndexError(f"example {number} of {len(self):,}")
        found = self.read(index, index + 1)
        return tuple(map_nest(lambda values, name: values[0], found))

    def read(self, start: int, stop: int) -> tuple[Any, ...]:
        """Return the examples start .. stop - 1 as arrays with a row for each."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        pieces = []
        with self._lock:
            while start < stop:
                base, end = self._starts[first : first + 2].tolist()
                if start < (last := min(stop, end)):
                    values = self._unchanged(first).read(self._names, start - base, last - base)
                    pieces.append(self._assembled(first, start - base, values))
                start, first = last, first + 1
        return pieces[0] if len(pieces) == 1 else concatenated(pieces)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_open", "_lock", "_process")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget_open_files()

    def _forget_open_files(self) -> None:
        self._open: OrderedDict[int, StoredRows] = OrderedDict()
        self._lock = threading.RLock()
        self._process = os.getpid()

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that an example needs."""
        return self._names

    def opened(self, index: int) -> Any:
        """Return an open file; a forked process opens its own."""
        if self._process != os.getpid():
            self._open, self._process = OrderedDict(), os.getpid()
        if index not in self._open:
            while len(self._open) >= self._max_open:
                self._open.popitem(last=False)[1].close()
            self._open[index] = self._open_file(self._paths[index])
        self._open.move_to_end(index)
        return self._open[index]

    def _unchanged(self, index: int) -> Any:
        """Return the open file, with the rows that were found at first."""
        path, stored = self._paths[index], self.opened(index)
        count = int(self._starts[index + 1] - self._starts[index])
        if any(name not in stored.columns or stored.columns[name].rows != count for name in self._names):
            raise DataError(f"{path} has changed since it was first opened. Restore the file, or start again.")
        return stored

    def _assembled(self, index: int, row: int, values: dict[str, np.ndarray]) -> tuple[Any, ...]:
        """Return examples of one file, `row` the first, from their columns."""
        path = self._paths[index]
        values = {name: _native(array) for name, array in values.items()}
        for name, array in values.items():
            shape = array.shape[1:]
            check_row_shape(path, name, row, shape, self._shapes.setdefault(name, shape))
        try:
            return assembled(self._parts, values)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    def _checked_rows(self, index: int, chosen: Mapping[str, Any]) -> int:
        """Return the number of rows of a file whose columns fit the first file; `chosen` names columns."""
        path, columns = self._paths[index], self.opened(index).columns
        for name in self._names:
            _check_column(path, name, columns, self._paths[0], self._columns[name])
        for name in names_of(_chosen_of(path, columns, chosen)):  # such as a column that the first file lacks
            _check_column(self._paths[0], name, self._columns, path, columns[name])
        counts = {name: columns[name].rows for name in self._names}
        longest, shortest = (choose(counts, key=counts.__getitem__) for choose in (max, min))
        if counts[longest] != counts[shortest]:
            raise DataError(
                f"{path} has {counts[longest]:,} rows of {longest!r}, but {counts[shortest]:,} of {shortest!r}. "
                "Choose columns of one length by features= and label=."
            )
        return counts[longest]

    def groups(self) -> np.ndarray:
        """First example of each group that a file unpacks together, and the end of the last group, int64 `[g + 1]`."""
        starts = [
            np.arange(base, end, self._stored_rows(index))
            for index, (base, end) in enumerate(pairwise(self._starts.tolist()))
        ]
        return np.append(np.concatenate(starts), len(self))

    @property
    def holds_group(self) -> bool:
        """Whether a file holds the group that it unpacked last, until the end of the group is read."""
        return getattr(self.opened(0), "holds_group", False)

    def identity(self) -> str:
        """Hex digest of the columns, and of name, size and time of all files."""
        facts = [repr((_VERSION, self._parts)), *map(_facts_of, self._paths)]
        return hashlib.sha256("\0".join(facts).encode(errors="surrogateescape")).hexdigest()

    def _stored_rows(self, index: int) -> int:
        return max(self.opened(index).columns[name].stored_rows for name in self._names)


class MappedSource(FileSource):
    """The examples of files whose rows can be read in any order at once, because the files are mapped into memory."""

    def take(self, indices: np.ndarray) -> tuple[Any, ...]:
        """Return the examples at `indices`, int64 `[k]`, as arrays with a row for each."""
        files = np.searchsorted(self._starts, indices, side="right") - 1
        found = []
        with self._lock:
            for index in np.unique(files).tolist():
                rows = indices[files == index] - self._starts[index]
                values = self._unchanged(index).take(self._names, rows)
                found.append(self._assembled(index, int(rows[0]), values))
        if len(found) == 1:
            return found[0]
        order = np.argsort(np.argsort(files, kind="stable"))
        return tuple(map_nest(lambda values, name: values[order], concatenated(found)))


def _chosen_of(path: Path, columns: Mapping[str, Column], chosen: Mapping[str, Any]) -> Parts:
    try:
        return chosen_parts(columns, **chosen)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def _check_column(path: Path, name: str, columns: Mapping[str, Column], first: Path, wanted: Column) -> None:
    if name not in columns:
        raise DataError(f"{path} has no column {name!r}, unlike {first}. Choose columns of all files by features=.")
    column = columns[name]
    if column.problem:
        raise DataError(f"{path}: the column {name!r} {column.problem}")
    if (column.dtype, column.shape) != (wanted.dtype, wanted.shape):
        raise DataError(
            f"{path} has the column {name!r} as {_form(column)}, and {first} as {_form(wanted)}. Files that are read "
            "together need the same types and shapes: write one of them again."
        )


def _form(column: Column) -> str:
    dtype = "text or bytes" if column.dtype.kind == "O" else str(column.dtype)
    return f"{dtype} of shape {column.shape}" if column.shape else dtype


def _facts_of(path: Path) -> str:
    """Return what changes with a file: its name, size and time; of a folder those facts of all its files."""
    if isinstance(path, RemotePath) and path.is_file():
        found = path.described()
        return repr((found.url, found.size, found.identity))
    if not path.is_dir():
        status = path.stat()
        return repr((str(path.absolute()), status.st_size, status.st_mtime_ns))
    with os.scandir(local_copy(path)) as entries:
        return "\0".join(_facts_of(Path(entry.path)) for entry in sorted(entries, key=lambda entry: entry.name))


def _native(array: np.ndarray) -> np.ndarray:
    """Return the array in the byte order of this machine, because TensorFlow takes no other."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


@contextmanager
def readable(path: Path, kind: str) -> Iterator[None]:
    """Turn any error of a library that reads a file into one sentence.

    Args:
        path: the file.
        kind: what the file should be, as in "Parquet".

    Raises:
        DataError: the block raised an error; libraries raise many types for a damaged file.
    """
    try:
        yield
    except DistrainError:
        raise
    except PermissionError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check your permissions.") from None
    except MemoryError:
        raise DataError(f"{path} needs more memory to read than there is. It may be damaged: write it again.") from None
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        shown = reason if len(reason) <= _MAX_REASON else f"{reason[:_MAX_REASON]}..."
        raise DataError(f"{path} cannot be read as {kind} ({shown}). Copy or write it again.") from None
