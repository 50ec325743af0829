"""Where the records of a file begin: found once, kept in a file beside it, and mapped by every process.

Decides: where an index is kept, and when it no longer fits its file. Never: how records are found.

    index = open_index(Path("part-0.tfrecord"), "tfrecord", find_records)
    index.table[17]                                    # int64: what `find_records` has found about record 17

An index is a hidden file beside its file; where that folder is read-only, it is a file of the user's cache folder. A
process that can write neither keeps the index in memory. Several processes may make one index at once, because each
writes a file of its own and renames it.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from distrain.errors import DataError
from distrain.files import atomic_write, describe
from distrain.remote.cache import user_cache

MAX_OPEN_FILES = 256  # that a source with indexes holds: each takes one descriptor and a map of its index
_VERSION = 1
_HEADER_BYTES = 2**16  # room for the names of fields; the table begins behind it
_SAMPLE_BYTES = 2**12  # of the begin and of the end of the file, for its digest
_LOCK = threading.Lock()  # `atomic_write` tells processes apart, not threads


@dataclass(frozen=True)
class RecordIndex:
    """Places of the records of one file.

    Attributes:
        table: int64 `[n, c]`: a row for each record.
        names: what the format names, such as the fields of a record.
    """

    table: np.ndarray
    names: tuple[str, ...] = ()


Find = Callable[[BinaryIO], RecordIndex]


def open_index(path: Path, kind: str, find: Find) -> RecordIndex:
    """Return the index of a file, from an earlier process or new.

    Args:
        path: the file.
        kind: format of the file.
        find: reads the open file from its start, and returns the index.

    Raises:
        DataError: the file cannot be read, or `find` says that it is damaged.
    """
    if not path.is_file():
        raise DataError(f"{path} is {'a folder' if path.is_dir() else 'no file'}. Give a file.")
    try:
        with path.open("rb") as file:
            facts = _facts(file, kind)
            for place in _places(path):
                if (index := _read(place, facts)) is not None:
                    return index
            index = find(file)
            if _facts(file, kind) != facts:
                raise DataError(f"{path} changed while it was read. Wait until it is complete, and start again.")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {describe(error)}. Check the path and your permissions.") from None
    for place in _places(path):
        if _write(place, facts, index):
            break
    return index


def _facts(file: BinaryIO, kind: str) -> dict[str, Any]:
    """Return what must be equal for an index to fit: size, time and a digest of both ends of the file."""
    status = os.fstat(file.fileno())
    ends = os.pread(file.fileno(), _SAMPLE_BYTES, 0)
    ends += os.pread(file.fileno(), _SAMPLE_BYTES, max(0, status.st_size - _SAMPLE_BYTES))
    found = {"size": status.st_size, "modified": status.st_mtime_ns, "ends": hashlib.sha256(ends).hexdigest()}
    return {"version": _VERSION, "kind": kind, **found}


def _places(path: Path) -> list[Path]:
    path = path.absolute()
    name = f".{path.name}.distrain-index"
    places = [path.with_name(name)]
    if (cache := user_cache()) is not None:
        places.append(cache / "indexes" / hashlib.sha256(os.fsencode(path)).hexdigest() / name[1:])
    return places


def _read(place: Path, facts: dict[str, Any]) -> RecordIndex | None:
    """Return the index of a file, or None if it is absent, damaged or made for another file."""
    try:
        with place.open("rb") as file:
            header = json.loads(file.read(_HEADER_BYTES))
        rows, columns = (int(side) for side in header["shape"])
        names = tuple(map(str, header["names"]))
        has_its_size = place.stat().st_size == _HEADER_BYTES + rows * columns * 8
        if header["facts"] != facts or min(rows, columns) < 1 or not has_its_size:
            return None
        table = np.memmap(place, "<i8", mode="r", offset=_HEADER_BYTES, shape=(rows, columns))
    except (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None
    size = facts["size"]
    return RecordIndex(table, names) if table.min() >= -1 and table.max() <= size else None


def _write(place: Path, facts: dict[str, Any], index: RecordIndex) -> bool:
    """Write an index file; return whether there was room and permission."""
    header = json.dumps({"facts": facts, "shape": index.table.shape, "names": index.names}).encode()
    if len(header) > _HEADER_BYTES or not len(index.table):
        return False
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _LOCK, atomic_write(place, durable=False) as tmp_path, tmp_path.open("wb") as file:
            file.write(header.ljust(_HEADER_BYTES))
            file.write(np.ascontiguousarray(index.table, "<i8").view(np.uint8).data)
    except OSError:
        return False
    return True
