"""Arrays with a row for each example, back to back in one file, which readers map into memory.

Decides: the bytes of such a file. Never: which examples it holds, or where it lies.

    write_rows(path, [{"x": pixels, "y": labels}], count=len(labels))
    rows = open_rows(path, is_trusted=False)         # None: absent, cut or changed
    rows["x"][10:20]                                 # a view of the map; of texts and bytes a new array of objects

A JSON object behind the arrays has dtype, shape and place of each array, and their CRC-32; its length ends the file.
Texts and bytes are stored as one run of bytes, and the end of each value in the run.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from distrain.data.bus_errors import report_lost_pages

_LENGTH = struct.Struct("<Q")
_ALIGNMENT = 64  # bytes


@dataclass(frozen=True)
class _Objects:
    """Texts or bytes of a file.

    Attributes:
        ends: int64 `[n + 1]`: where each value ends in `content`, after a 0.
        content: all values, one after the other.
        is_text: whether the values are texts.
        shape: shape of a row.
    """

    ends: np.ndarray
    content: np.ndarray
    is_text: bool
    shape: tuple[int, ...]

    def __getitem__(self, rows: slice) -> np.ndarray:
        width = int(np.prod(self.shape))
        bounds = self.ends[rows.start * width : rows.stop * width + 1]
        first = int(bounds[0])
        run = self.content[first : int(bounds[-1])].tobytes()
        found = np.empty(len(bounds) - 1, object)
        for place, (start, stop) in enumerate(pairwise((bounds - first).tolist())):
            value = run[start:stop]
            found[place] = value.decode("utf-8", "surrogatepass") if self.is_text else value
        return found.reshape(-1, *self.shape)


Rows = Mapping[str, Any]  # by name: an array, or `_Objects`, whose slices are arrays


def is_storable(value: np.ndarray) -> bool:
    """Whether a file can hold an array: of numbers, or of texts or bytes alone."""
    return value.dtype != object or all(isinstance(one, (bytes, str)) for one in value.ravel().tolist())


def num_bytes_of(value: np.ndarray) -> int:
    """Bytes that an array takes in a file."""
    if value.dtype != object:
        return value.nbytes
    return sum(len(one) if isinstance(one, bytes) else len(str(one).encode()) for one in value.ravel().tolist())


def write_rows(path: Path, pieces: Iterable[Mapping[str, np.ndarray]], count: int) -> None:
    """Write `count` rows to a new file, piece by piece, so that few of them are in memory; of texts and bytes all are.

    Args:
        path: the file.
        pieces: arrays by name, with the next rows.
        count: rows of all pieces together.
    """
    places: dict[str, dict[str, Any]] = {}
    objects: dict[str, list[np.ndarray]] = {}
    facts: dict[str, dict[str, Any]] = {}
    end = done = 0
    with path.open("w+b") as file:
        for piece in pieces:
            for name, value in piece.items():
                facts.setdefault(name, {"objects": "", "shape": value.shape[1:]})
                if value.dtype == object:
                    objects.setdefault(name, []).append(value)
                    continue
                if name not in places:
                    places[name] = {"dtype": value.dtype.str, "shape": (count, *value.shape[1:]), "place": end}
                    end = _aligned(end + value[:1].nbytes * count)
                file.seek(places[name]["place"] + value[:1].nbytes * done)
                file.write(_bytes_of(value))
            done += len(value)
        for name, values in objects.items():
            values_of_all = np.concatenate(values)
            is_text = isinstance(values_of_all.flat[0], str)
            facts[name]["objects"] = "text" if is_text else "bytes"
            for part, packed in zip(("ends", "content"), _packed(values_of_all, is_text=is_text), strict=True):
                places[f"{name} {part}"] = {"dtype": packed.dtype.str, "shape": packed.shape, "place": end}
                file.seek(end)
                file.write(_bytes_of(packed))
                end = _aligned(end + packed.nbytes)
        file.truncate(end)
        file.flush()
        crc = zlib.crc32(np.memmap(path, np.uint8, mode="r").data) if end else 0
        header = json.dumps({"arrays": facts, "places": places, "crc32": crc, "bytes": end}).encode()
        file.seek(end)
        file.write(header + _LENGTH.pack(len(header)))


def open_rows(path: Path, *, is_trusted: bool) -> Rows | None:
    """Map the arrays of a file.

    Args:
        path: the file.
        is_trusted: whether this process wrote the file, so that nothing is compared.

    Returns:
        The arrays by name; None if the file is absent, cut or changed.
    """
    try:
        mapped = np.memmap(path, np.uint8, mode="r")
        (length,) = _LENGTH.unpack(mapped[-_LENGTH.size :].tobytes())
        header = json.loads(mapped[-_LENGTH.size - length : -_LENGTH.size].tobytes())
        content = np.asarray(mapped)[: -_LENGTH.size - length]
        if len(content) != header["bytes"] or (not is_trusted and zlib.crc32(content.data) != header["crc32"]):
            return None
        report_lost_pages(mapped)
        plain = {name: _view(content, **place) for name, place in header["places"].items()}
        return {name: _array(plain, name, **fact) for name, fact in header["arrays"].items()}
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None


def _aligned(place: int) -> int:
    return place + -place % _ALIGNMENT


def _bytes_of(value: np.ndarray) -> Any:
    return np.ascontiguousarray(value).view(np.uint8).data if value.size else b""


def _packed(value: np.ndarray, *, is_text: bool) -> tuple[np.ndarray, np.ndarray]:
    values = value.ravel().tolist()
    octets = [one.encode("utf-8", "surrogatepass") for one in values] if is_text else values
    ends = np.cumsum([0, *map(len, octets)], dtype=np.int64)
    return ends, np.frombuffer(b"".join(octets), np.uint8)


def _view(content: np.ndarray, dtype: str, shape: list[int], place: int) -> np.ndarray:
    kind = np.dtype(dtype)
    stop = place + int(np.prod(shape)) * kind.itemsize
    return content[place:stop].view(kind).reshape(shape)


def _array(plain: Mapping[str, np.ndarray], name: str, objects: str, shape: list[int]) -> Any:
    if not objects:
        return plain[name]
    return _Objects(plain[f"{name} ends"], plain[f"{name} content"], objects == "text", tuple(shape))
