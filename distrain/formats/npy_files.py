"""NumPy's files as a source: folders of `.npy` files, and `.npz` files.

Decides: what a folder of arrays is, and how the members of a `.npz` file are read. Never: reads pickle.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> np.save(folder / "x.npy", np.arange(6.0).reshape(3, 2)), np.save(folder / "y.npy", np.array([0, 1, 2]))
    (None, None)
    >>> npy(folder)[1]
    (array([2., 3.]), np.int64(1))

Arrays are mapped into memory, and so are the members of a `.npz` file that `numpy.savez` wrote. Members that
`numpy.savez_compressed` wrote are unpacked as a whole, for two files at a time.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from distrain.data.bus_errors import report_lost_pages
from distrain.errors import DataError
from distrain.formats.columns import NUMBERS, Column, Names
from distrain.formats.file_list import Paths, listed
from distrain.formats.file_source import FileSource, MappedSource, readable
from distrain.remote.local_copy import local_copies, local_copy

MAX_UNPACKED_BYTES = 2**29  # of the chosen members of one compressed file

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a member of a ZIP file: magic, lengths of its name and its extra field
_KIND = "arrays of NumPy without pickle"
_PIECE_BYTES = 2**20


def npy(
    paths: Paths, *, features: Names | None = None, label: Names | None = None, weight: str | None = None
) -> FileSource:
    """Use NumPy's files as a source of examples.

    Args:
        paths: a folder of `.npy` files, a `.npz` file, a pattern, or a list of these, which are read one after the
            other. A `.npy` file is a column of its own name, and a `.npz` file has a column for each member.
        features: columns of the features: a name, a list of names for one vector, or a dict of inputs.
            Default: all columns but label and weight.
        label: columns of the label. Default: the column "label", "labels" or "y".
        weight: column of the weight. Default: the column "weight", "weights" or "sample_weight".

    Raises:
        DataError: a file is missing or damaged, or holds other things than numbers.
        ConfigurationError: a column does not exist.
    """
    files = listed(paths, suffixes=(".npy", ".npz"), kind="NumPy files")
    local_copies(files)  # at once
    groups = _groups(files)
    opened = {path: _open(groups, path) for path in groups}
    is_mapped = not any(stored.is_packed for stored in opened.values())
    make = MappedSource if is_mapped else partial(FileSource, max_open=2)
    return make(partial(_open, groups), list(groups), features=features, label=label, weight=weight)


def _groups(files: Sequence[Path]) -> dict[Path, list[Path]]:
    """Return the `.npy` files of each folder, and no files for each `.npz` file, in the order of the files."""
    groups: dict[Path, list[Path]] = {}
    for file in files:
        if file.suffix.lower() == ".npz":
            groups[file] = []
        else:
            groups.setdefault(file.parent, []).append(file)
    return groups


def _open(groups: Mapping[Path, Sequence[Path]], path: Path) -> _Arrays:
    if not groups[path]:
        return _Arrays(path, _members(path))
    return _Arrays(path, {file.stem: _mapped(file) for file in groups[path]})


@dataclass(frozen=True)
class _Packed:
    """A member of a `.npz` file that must be unpacked.

    Attributes:
        member: its name in the file.
        shape: shape of the array.
        dtype: dtype of the array.
    """

    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def num_bytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize


class _Arrays:
    """The arrays of a folder, or of a `.npz` file."""

    def __init__(self, path: Path, arrays: Mapping[str, np.ndarray | _Packed]) -> None:
        self._path = path
        self._arrays = arrays
        self._unpacked: dict[str, np.ndarray] = {}
        self.columns = {name: _column(array) for name, array in arrays.items()}

    @property
    def is_packed(self) -> bool:
        """Whether a member must be unpacked."""
        return any(isinstance(array, _Packed) for array in self._arrays.values())

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, np.ndarray]:
        return {name: array[start:stop] for name, array in self._whole(names).items()}

    def take(self, names: Sequence[str], rows: np.ndarray) -> dict[str, np.ndarray]:
        return {name: array[rows] for name, array in self._whole(names).items()}

    def close(self) -> None:
        self._unpacked = {}

    def _whole(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return arrays, of which packed ones are unpacked first."""
        packed = {name: array for name in names if isinstance(array := self._arrays[name], _Packed)}
        if (total := sum(array.num_bytes for array in packed.values())) > MAX_UNPACKED_BYTES:
            raise DataError(
                f"{self._path} is compressed, and unpacked its arrays take {total / 2**20:,.0f} MiB, over "
                f"{MAX_UNPACKED_BYTES / 2**20:,.0f} MiB. Write it by numpy.savez, or as .npy files."
            )
        for name, array in packed.items():
            if name not in self._unpacked:
                self._unpacked[name] = _unpacked(self._path, array)
        return {
            name: self._unpacked[name] if name in packed else cast(np.ndarray, self._arrays[name]) for name in names
        }


def _column(array: np.ndarray | _Packed) -> Column:
    if not array.shape:
        return Column(0, problem="is a single value; an array of examples has at least one axis.")
    if array.dtype.kind not in NUMBERS + "SU":
        return Column(array.shape[0], problem=f"is of type {array.dtype}; write it as numbers.")
    stored = array.shape[0] if isinstance(array, _Packed) else 1
    return Column(array.shape[0], array.dtype.newbyteorder("="), array.shape[1:], stored)


def _mapped(path: Path) -> np.ndarray:
    with readable(path, _KIND):
        array = np.lib.format.open_memmap(local_copy(path), mode="r")  # never reads pickle
    report_lost_pages(array)
    return np.asarray(array)


def _members(path: Path) -> dict[str, np.ndarray | _Packed]:
    """Return the arrays of a `.npz` file: mapped where the file holds them as they are."""
    with readable(path, _KIND), zipfile.ZipFile(local_copy(path)) as archive, local_copy(path).open("rb") as file:
        infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if {"indptr", "format"} <= infos.keys():
            raise DataError(f"{path} is a sparse matrix. Give train=(scipy.sparse.load_npz(path), labels) instead.")
        return {name: _member(archive, info, file, path) for name, info in infos.items()}


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: IO[bytes], path: Path) -> np.ndarray | _Packed:
    with archive.open(info) as member:
        shape, is_fortran, dtype = _read_header(member)
        header_bytes = member.tell()
    if info.compress_type != zipfile.ZIP_STORED or dtype.hasobject:
        return _Packed(info.filename, shape, dtype)
    file.seek(info.header_offset)
    magic, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    if magic != b"PK\x03\x04":
        raise ValueError(f"{info.filename} is not where its directory says")
    offset = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes + header_bytes
    array = np.memmap(local_copy(path), dtype, mode="r", offset=offset, shape=shape, order="F" if is_fortran else "C")
    report_lost_pages(array)
    return np.asarray(array)


def _unpacked(path: Path, array: _Packed) -> np.ndarray:
    with (
        readable(path, _KIND),
        zipfile.ZipFile(local_copy(path)) as archive,
        archive.open(array.member) as member,
    ):
        _, is_fortran, _ = _read_header(member)
        values = np.empty(array.num_bytes, np.uint8)
        start = 0
        while start < len(values) and (piece := member.read(min(_PIECE_BYTES, len(values) - start))):
            values[start : start + len(piece)] = np.frombuffer(piece, np.uint8)
            start += len(piece)
        if start < len(values) or member.read(1):  # the end of a member is where its checksum is compared
            raise ValueError(f"{array.member} has another length than its header says")
    return values.view(array.dtype).reshape(array.shape, order="F" if is_fortran else "C")


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(file)
    if min(shape, default=0) < 0:
        raise ValueError(f"it declares the shape {shape}")
    return shape, is_fortran, dtype
