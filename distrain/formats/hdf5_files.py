"""HDF5 files as a source: data sets of one length, at the root or in groups.

Decides: which data sets of a file may be read. Never: follows a link, or reads storage, that lies in another file.

    source = hdf5("photos.h5", features="train/images", label="train/labels")

Numbers that stand in a file one after the other are mapped into memory, as a `.npy` file is. HDF5 itself reads all
other data sets, and takes a lock of the whole process for each range.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distrain.data.bus_errors import report_lost_pages
from distrain.extras import require_extra
from distrain.formats.columns import NUMBERS, OBJECTS, Column, Names
from distrain.formats.file_list import Paths, listed
from distrain.formats.file_source import FileSource, MappedSource, readable
from distrain.formats.stored_arrays import chunked_column
from distrain.remote.local_copy import local_copies, local_copy

_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")
_KIND = "HDF5"
_CHUNK_CACHE_BYTES = 2**25  # of each data set: consecutive reads may share a chunk
_OTHER_FILE = "which a file from elsewhere must not do. Copy the data into the file, or give the other file."


def hdf5(
    paths: Paths, *, features: Names | None = None, label: Names | None = None, weight: str | None = None
) -> FileSource:
    """Use data sets of HDF5 files as a source of examples.

    Numbers and booleans become arrays. Texts, and bytes of any length, reach `map=` as objects.

    Args:
        paths: a file, a folder, a pattern, or a list of these; read one after the other, in the order of their names.
        features: data sets of the features: a name such as "train/x", a list of names for one vector, or a dict of
            inputs. Default: all data sets but label and weight.
        label: data sets of the label. Default: the data set "label", "labels" or "y".
        weight: data set of the weight. Default: the data set "weight", "weights" or "sample_weight".

    Raises:
        DataError: a file is missing or damaged, or a data set holds other things than numbers.
        ConfigurationError: a data set does not exist, or h5py is not installed.
    """
    files = listed(paths, suffixes=_SUFFIXES, kind="HDF5 files")
    require_extra("h5py", extra="hdf5", what=f"Reading {files[0]}")
    local_copies(files)  # at once
    source = FileSource(HdfRows, files, features=features, label=label, weight=weight)
    if all(source.opened(index).maps(source.names) for index in range(len(files))):
        return MappedSource(HdfRows, files, features=features, label=label, weight=weight)
    return source


class HdfRows:
    """One open HDF5 file."""

    def __init__(self, path: Path) -> None:
        import h5py

        self._path = path
        self.columns: dict[str, Column] = {}
        self._stored: dict[str, Any] = {}  # an array, or a data set of h5py

        def add(name: str, link: Any) -> None:
            if isinstance(link, h5py.ExternalLink):
                self.columns[name] = Column(0, problem=f"is a link to another file, {_OTHER_FILE}")
            elif isinstance(link, h5py.HardLink) and isinstance(dataset := self._file[name], h5py.Dataset):
                self.columns[name] = column = _column(dataset, path.stat().st_size)
                self._stored[name] = dataset if column.problem else _mapped(dataset)

        with readable(path, _KIND):
            # A lock would fail on storage that is mounted for reading, and no reader of finished files needs one.
            self._file = h5py.File(local_copy(path), "r", locking=False, rdcc_nbytes=_CHUNK_CACHE_BYTES)
            self._file.visititems_links(add)

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, np.ndarray]:
        """Return the rows start .. stop - 1 of some data sets."""
        with readable(self._path, _KIND):
            return {name: _values(self._stored[name], start, stop) for name in names}

    def take(self, names: Sequence[str], rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return some rows of data sets that are mapped."""
        return {name: self._stored[name][rows] for name in names}

    def maps(self, names: Sequence[str]) -> bool:
        """Whether data sets are mapped into memory."""
        return all(isinstance(self._stored[name], np.ndarray) for name in names)

    def close(self) -> None:
        """Close the file; the maps end with their last array."""
        self._file.close()


def _column(dataset: Any, num_bytes: int) -> Column:
    if dataset.external or dataset.is_virtual:
        return Column(0, problem=f"reads other files, {_OTHER_FILE}")
    if not dataset.shape:
        return Column(0, problem="is a single value; a data set of examples has at least one axis.")
    dtype = dataset.dtype
    if _is_text(dtype) or _is_bytes(dtype):
        return chunked_column(dataset.shape, OBJECTS, dataset.chunks, num_bytes)
    if dtype.kind not in NUMBERS:
        return Column(dataset.shape[0], problem=f"is of type {dtype}, which is no number. Write it as numbers.")
    return chunked_column(dataset.shape, dtype, dataset.chunks, num_bytes)


def _mapped(dataset: Any) -> Any:
    """Return a data set as an array that is mapped into memory, or the data set itself where that is impossible.

    The values must stand in the file one after the other, in a form that NumPy knows.
    """
    import h5py

    offset = None if dataset.chunks else dataset.id.get_offset()
    is_plain = dataset.dtype.kind in "iuf" and dataset.id.get_type().equal(h5py.h5t.py_create(dataset.dtype))
    if offset is None or not is_plain or not dataset.size or dataset.file.userblock_size:
        return dataset
    array = np.memmap(dataset.file.filename, dataset.dtype, mode="r", offset=offset, shape=dataset.shape)
    report_lost_pages(array)
    return np.asarray(array)


def _is_text(dtype: np.dtype[Any]) -> bool:
    import h5py

    return h5py.check_string_dtype(dtype) is not None


def _is_bytes(dtype: np.dtype[Any]) -> bool:
    """Whether each value is a run of bytes of any length, as encoded images are stored."""
    import h5py

    return h5py.check_vlen_dtype(dtype) == np.uint8


def _values(dataset: Any, start: int, stop: int) -> np.ndarray:
    if isinstance(dataset, np.ndarray):
        return dataset[start:stop]
    if _is_text(dataset.dtype):
        return np.asarray(dataset.asstr()[start:stop], object)
    values: np.ndarray = dataset[start:stop]
    if not _is_bytes(dataset.dtype):
        return values
    octets = np.empty(values.shape, object)
    octets[...] = np.frompyfunc(bytes, 1, 1)(values)
    return octets
