"""Arrays in files, for which a failed write is an `OSError` that names file and reason.

Decides: how arrays get into a file. Never: what arrays mean, or how they are read.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.npy"
    >>> save_npy(path, np.arange(3))
    >>> np.load(path).tolist()
    [0, 1, 2]

`numpy.save` and `ndarray.tofile` raise errors without a reason. The writer of safetensors writes a file in one go, so
nothing else can happen between two pieces of a large file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from distrain.files import naming
from distrain.fingerprints import Fingerprint

PIECE_BYTES = 1 << 22  # 4 MiB take some 5 milliseconds of a core, a small part of a step that feels anything
SYNC_BYTES = 1 << 25  # the system writes 32 MiB at once without a stall; a sync of gigabytes would hold up other files

# Types of safetensors by NumPy's names, in the order in which the library stores arrays: each type stays aligned.
_TYPES = {
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
    "complex64": "C64",
    "float32": "F32",
    "uint32": "U32",
    "int32": "I32",
    "float16": "F16",
    "uint16": "U16",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


def save_safetensors(
    path: Path, arrays: Mapping[str, np.ndarray], after_piece: Callable[[], None] = lambda: None
) -> Fingerprint:
    """Write arrays by name in the format of safetensors, with the bytes that the library writes, and sync them.

    Args:
        path: File to write.
        arrays: Arrays by name.
        after_piece: Called after each piece of `PIECE_BYTES` at most.

    Returns:
        The record of the file, whose bytes are hashed as they are written.
    """
    for name, array in arrays.items():
        if array.dtype.name not in _TYPES:
            reason = f"{name} is of type {array.dtype.name}, which no safetensors file can hold"
            raise OSError(errno.EINVAL, reason, str(path))
    order = list(_TYPES)
    names = sorted(arrays, key=lambda name: (order.index(arrays[name].dtype.name), name))
    digest, num_bytes, unsynced = hashlib.sha256(), 0, 0
    with naming(path), path.open("wb", buffering=0) as file:

        def write(piece: memoryview) -> None:
            nonlocal num_bytes, unsynced
            digest.update(piece)
            num_bytes, unsynced = num_bytes + len(piece), unsynced + len(piece)
            while piece:
                piece = piece[file.write(piece) :]
            if unsynced >= SYNC_BYTES:
                os.fdatasync(file.fileno())
                unsynced = 0
            after_piece()

        write(memoryview(_header(names, arrays)))
        for name in names:
            values = np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data
            for first in range(0, len(values), PIECE_BYTES):
                write(values[first : first + PIECE_BYTES])
    return Fingerprint(num_bytes, digest.hexdigest())


def _header(names: list[str], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the length and the JSON of a safetensors file, padded so that the first array is aligned."""
    entries, end = {}, 0
    for name in names:
        first, end = end, end + arrays[name].nbytes
        entries[name] = {
            "dtype": _TYPES[arrays[name].dtype.name],
            "shape": arrays[name].shape,
            "data_offsets": [first, end],
        }
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def save_npy(path: Path, array: np.ndarray) -> None:
    """Write a contiguous array of one axis as `numpy.save` does."""
    with naming(path), path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.view(np.uint8).data)


def write_values(path: Path, array: np.ndarray) -> None:
    """Write the values of a contiguous array alone, as `ndarray.tofile` does."""
    with naming(path), path.open("wb") as file:
        file.write(array.reshape(-1).view(np.uint8).data)
