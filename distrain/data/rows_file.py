"""Arrays with a row for each example, back to back in one file, which readers map into memory.

Decides: the bytes of such a file. Never: which examples it holds, or where it lies.

    write_rows(path, {"x": pixels, "y": labels})
    rows = open_rows(path, is_trusted=False)         # None: absent, cut or changed
    rows["x"][10:20]                                 # a view of the map; of texts and bytes a new array of objects

The file begins with the length of a JSON header. The header has dtype, shape and place of each array, and the CRC-32 of
all behind the header. Texts and bytes are stored as one run of bytes, and the end of each value in the run.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from distrain.data.lost_pages import report_lost_pages

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


def write_rows(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to a new file."""
    plain: dict[str, np.ndarray] = {}
    facts: dict[str, dict[str, Any]] = {}
    for name, value in arrays.items():
        kind = ""
        if value.dtype == object:
            kind = "text" if value.size and isinstance(value.flat[0], str) else "bytes"
            plain[f"{name} ends"], plain[f"{name} content"] = _packed(value, is_text=kind == "text")
        else:
            plain[name] = np.ascontiguousarray(value)
        facts[name] = {"objects": kind, "shape": value.shape[1:]}
    place, crc, pieces = 0, 0, []
    places: dict[str, Any] = {}
    for name, value in plain.items():
        piece = value.view(np.uint8).data if value.size else b""
        padding = b"\0" * (-value.nbytes % _ALIGNMENT)
        places[name] = {"dtype": value.dtype.str, "shape": value.shape, "place": place}
        pieces += [piece, padding]
        place += value.nbytes + len(padding)
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    header = json.dumps({"arrays": facts, "places": places, "crc32": crc, "bytes": place}).encode()
    header = header.ljust(len(header) + -(len(header) + _LENGTH.size) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(_LENGTH.pack(len(header)) + header)
        for piece in pieces:
            file.write(piece)


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
        (length,) = _LENGTH.unpack(mapped[: _LENGTH.size].tobytes())
        start = _LENGTH.size + length
        header = json.loads(mapped[_LENGTH.size : start].tobytes())
        content = np.asarray(mapped)[start:]
        if len(content) != header["bytes"] or (not is_trusted and zlib.crc32(content.data) != header["crc32"]):
            return None
        report_lost_pages(mapped)
        plain = {name: _view(content, **place) for name, place in header["places"].items()}
        return {name: _array(plain, name, **fact) for name, fact in header["arrays"].items()}
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None


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
