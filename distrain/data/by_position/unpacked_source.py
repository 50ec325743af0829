"""A source whose storage unpacks many examples to read one, unpacked once into the cache on local disk.

Decides: whether shuffled examples come from such a copy, which examples share a file, and what a source without a copy
costs. Never: the order of examples.

    source, warnings = for_shuffled_spans(source, "train", num_examples=10**7, window=65_536, span=256)
    source.read(512, 768)                            # unpacks the group of these examples, unless a file holds it

A shuffle window takes its spans from all of the data. Without a copy, each window would unpack nearly all row groups of
a Parquet file. A copy has a file for each group, or for several small ones. All processes of a machine share the files,
and find them again in a later run. Files of data that is no longer used make room when the cache is full.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from distrain.data.by_position.rows_file import Rows, is_storable, num_bytes_of, open_rows, write_rows
from distrain.data.nests import concatenated, leaves, map_nest
from distrain.errors import ConfigurationError, DataError
from distrain.remote.cache import FOLDER_VARIABLE, SIZE_VARIABLE, Cache, find_cache, locked, no_room

FILE_BYTES = 2**24  # of the examples of a file, unless the storage holds more together
TOLD_BYTES = 2**28  # a warning tells of larger copies, which the first steps wait for
_MAX_OPEN = 1024  # files mapped at once; Linux allows 65,530 maps in a process
_NUM_LOCKS = 16  # files that processes of a machine may write at once
_LOCK_SECONDS = 300.0  # to unpack one group


class PackedSource(Protocol):
    """A source that is unpacked in groups of neighbours."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> tuple[Any, ...]:
        """Return the examples start .. stop - 1 as arrays."""

    @property
    def holds_group(self) -> bool:
        """Whether a group stays unpacked until its end is read, so that ranges within it cost little."""

    def groups(self) -> np.ndarray:
        """First example of each group, and the end of the last group, int64 `[g + 1]`."""

    def identity(self) -> str:
        """Hex digest that changes with the data."""


def for_shuffled_spans(source: Any, name: str, *, num_examples: int, window: int, span: int) -> tuple[Any, list[str]]:
    """Return the source to read shuffled spans from, and warnings for a user who shuffles.

    Args:
        source: a source that is fast by ranges alone.
        name: its name in messages.
        num_examples: examples of the source.
        window: most examples in a shuffle window.
        span: neighbours that a window takes.

    Raises:
        ConfigurationError: the source has a `span_size` that is no whole number of at least 1.
    """
    stored = getattr(source, "span_size", 1)
    if not isinstance(stored, (int, np.integer)) or stored < 1:
        raise ConfigurationError(f"{name} has {stored!r} as span_size; give a whole number of at least 1.")
    if num_examples <= window or stored <= span:
        return source, []
    times = _times_unpacked(num_examples, window, min(stored, num_examples) / span)
    cost = f"{name}: groups of {stored:,} examples are unpacked about {times:,.0f} times in a shuffled epoch"
    if not all(hasattr(source, part) for part in ("groups", "identity", "holds_group")):
        return source, [f"{cost}. Give it take(indices) or smaller groups, or write the data by distrain prepare."]
    first = source.read(0, 1)
    if not all(is_storable(value) for _, value in leaves(first)):
        return source, [f"{cost}. Write the data in smaller groups."]
    row_bytes = max(1, sum(num_bytes_of(value) for _, value in leaves(first)))
    total = row_bytes * num_examples
    try:
        cache = find_cache()
        copy = UnpackedSource(source, cache, _files_of(source.groups(), row_bytes))
    except ConfigurationError as error:
        return source, [f"{cost}. {error}"]
    except OSError as error:
        return source, [
            f"{cost}, because the cache cannot be written ({error}). Name another one by {FOLDER_VARIABLE}."
        ]
    missing = total - copy.num_bytes_held()
    size = f"{total / 2**30:,.1f} GiB"
    if total > cache.max_bytes or missing > _free_bytes(cache.root):
        return source, [
            f"{cost}, because unpacked they take {size}, and the cache {cache.root} has no room for them. "
            f"Set {SIZE_VARIABLE} or {FOLDER_VARIABLE}, or write the data in groups of {span:,} examples."
        ]
    if missing < TOLD_BYTES:
        return copy, []
    return copy, [
        f"{name}: groups of {stored:,} examples are unpacked once into the cache {cache.root}, {size} in all, because "
        "a shuffled epoch takes examples from all of them. The first steps wait for it."
    ]


class UnpackedSource:
    """Reads ranges of a source from files of unpacked examples, and writes the files that are missing.

    Args:
        source: the source.
        cache: the folder of the files.
        starts: first example of each file, and the end of the last one, int64 `[f + 1]`.

    Raises:
        OSError: the cache cannot be written.

    Attributes:
        span_size: 1, because each example can be read alone.
    """

    span_size = 1

    def __init__(self, source: PackedSource, cache: Cache, starts: np.ndarray) -> None:
        self._source, self._cache, self._starts = source, cache, starts
        self._entry = source.identity()
        self._form = source.read(0, 1)  # the structure of examples
        self._row_bytes = max(1, sum(num_bytes_of(value) for _, value in leaves(self._form)))
        self._forget_open_files()
        self._folder: Path | None = cache.pin(self._entry, self)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        """Return one example."""
        return tuple(map_nest(lambda values, name: values[0], part) for part in self.read(number, number + 1))

    def read(self, start: int, stop: int) -> tuple[Any, ...]:
        """Return the examples start .. stop - 1 as arrays with a row for each; the arrays may be views of a file.

        Raises:
            DataError: the source cannot be read, or the cache cannot be written.
        """
        pieces = []
        index = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            base, end = self._starts[index : index + 2].tolist()
            last = min(stop, end)
            rows, part = self._rows(index), slice(start - base, last - base)
            pieces.append(tuple(_named(rows, part, place, form) for place, form in enumerate(self._form)))
            start, index = last, index + 1
        return pieces[0] if len(pieces) == 1 else concatenated(pieces)

    def num_bytes_held(self) -> int:
        """Bytes of the files that earlier processes wrote."""
        try:
            return sum(entry.stat().st_size for entry in os.scandir(self._cache.root / self._entry))
        except OSError:
            return 0

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_open", "_lock", "_folder")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget_open_files()

    def _forget_open_files(self) -> None:
        self._open: OrderedDict[int, Rows] = OrderedDict()
        self._lock = threading.RLock()
        self._folder = None

    def _rows(self, index: int) -> Rows:
        with self._lock:
            if index not in self._open:
                while len(self._open) >= _MAX_OPEN:
                    self._open.popitem(last=False)
                try:
                    self._open[index] = self._found_or_written(index)
                except OSError as error:
                    raise DataError(
                        f"the cache {self._cache.root} cannot be written: {error.strerror or error}. Free its disk, or "
                        f"name another folder by {FOLDER_VARIABLE}."
                    ) from None
            self._open.move_to_end(index)
            return self._open[index]

    def _found_or_written(self, index: int) -> Rows:
        if self._folder is None:
            self._folder = self._cache.pin(self._entry, self)
        path = self._folder / _file_name(self._starts, index)
        if (rows := open_rows(path, is_trusted=False)) is None:
            with locked(self._folder / f".turn-{index % _NUM_LOCKS}", _LOCK_SECONDS):
                if (rows := open_rows(path, is_trusted=False)) is None:  # no other process wrote it meanwhile
                    return self._written(index, path)
        os.utime(path)  # the file that was used least goes first
        return rows

    def _written(self, index: int, path: Path) -> Rows:
        start, stop = self._starts[index : index + 2].tolist()
        if not self._cache.reserve((stop - start) * self._row_bytes):
            raise no_room(self._cache, path.name)
        with self._cache.unfinished(path) as tmp_path:
            write_rows(tmp_path, self._pieces(start, stop), stop - start)
        rows = open_rows(path, is_trusted=True)
        if rows is None:
            raise DataError(f"the cache {self._cache.root} lost a file as it was written. Check its disk.")
        return rows

    def _pieces(self, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        """Yield the arrays of neighbours: a few at a time, if the source holds the group that it unpacked."""
        at_once = max(1, FILE_BYTES // self._row_bytes) if self._source.holds_group else stop - start
        for first in range(start, stop, at_once):
            found = self._source.read(first, min(first + at_once, stop))
            yield {name: value for place, part in enumerate(found) for name, value in _leaves(part, place)}


def _leaves(part: Any, place: int) -> list[tuple[str, np.ndarray]]:
    return [(f"{place} {name}", value) for name, value in leaves(part)]


def _named(rows: Rows, part: slice, place: int, form: Any) -> Any:
    return map_nest(lambda value, name: rows[f"{place} {name}"][part], form)


def _file_name(starts: np.ndarray, index: int) -> str:
    """Name of a file; the other files of a data set may have other bounds, after a change of the release."""
    first, stop = starts[index : index + 2].tolist()
    return f"{first}-{stop}"


def _files_of(groups: np.ndarray, row_bytes: int) -> np.ndarray:
    """Return the bounds of files, which hold whole groups and about `FILE_BYTES`, or one larger group."""
    files = groups[:-1] * row_bytes // FILE_BYTES
    return np.append(groups[:-1][np.append(True, np.diff(files) > 0)], groups[-1])


def _times_unpacked(num_examples: int, window: int, spans: float) -> float:
    """Return how many windows of an epoch take a span of one group, on average."""
    windows = -(-num_examples // window)
    return float(windows * (1 - (1 - 1 / windows) ** spans))


def _free_bytes(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
