"""Files of many formats as training data: each function returns a source by position.

    >>> from distrain import formats        # loads no library of a format
    >>> formats.npy.__name__
    'npy'

    distrain.fit(build_model, train=formats.npy("data/train"), validation=formats.npy("data/test"))

Python imports the module of a function at the first use of the function.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distrain.formats.hdf5_files import hdf5
    from distrain.formats.npy_files import npy
    from distrain.formats.pictures.decoding import decode_image
    from distrain.formats.pictures.folder import images
    from distrain.formats.records.tfrecord_files import tfrecord
    from distrain.formats.records.webdataset_files import webdataset
    from distrain.formats.tables.arrow_files import arrow
    from distrain.formats.tables.parquet_files import parquet
    from distrain.formats.zarr_stores import zarr

_MODULES = {
    "arrow": "distrain.formats.tables.arrow_files",
    "decode_image": "distrain.formats.pictures.decoding",
    "hdf5": "distrain.formats.hdf5_files",
    "images": "distrain.formats.pictures.folder",
    "npy": "distrain.formats.npy_files",
    "parquet": "distrain.formats.tables.parquet_files",
    "tfrecord": "distrain.formats.records.tfrecord_files",
    "webdataset": "distrain.formats.records.webdataset_files",
    "zarr": "distrain.formats.zarr_stores",
}

__all__ = [
    "arrow",
    "decode_image",
    "hdf5",
    "images",
    "npy",
    "parquet",
    "tfrecord",
    "webdataset",
    "zarr",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'distrain.formats' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
