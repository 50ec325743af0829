"""Zarr stores as a source: an array, or the arrays of a group, of version 2 and 3.

Decides: which arrays and codecs of a store may be read. Never: decodes pickle.

    source = zarr("photos.zarr", features="images", label="labels")

A store is a folder, or a `.zip` file. Zarr reads a chunk that is missing as the array's fill value: nobody can tell it
from a chunk that was never written. A warning names the first one of each array.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distrain.extras import require_extra
from distrain.formats.columns import FEWEST_ROWS, MAX_ROWS_PER_BYTE, NUMBERS, Column, Names
from distrain.formats.file_list import Paths, listed
from distrain.formats.file_source import FileSource, readable
from distrain.formats.stored_arrays import chunked_column
from distrain.remote.local_copy import local_copies, local_copy

_LOG = logging.getLogger(__name__)

_KIND = "a Zarr store"
_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
# A codec runs code on the bytes of a store, and one of them is pickle. These unpack numbers and nothing else.
_CODECS = {
    *("adler32", "crc32", "crc32c", "fletcher32", "jenkins_lookup3"),
    *("blosc", "bz2", "gzip", "lz4", "lzma", "pcodec", "zfpy", "zlib", "zstd"),
    *("astype", "bitround", "cast_value", "delta", "fixedscaleoffset", "packbits", "quantize", "scale_offset"),
    *("bytes", "endian", "sharding_indexed", "shuffle", "transpose"),
}


def zarr(
    paths: Paths, *, features: Names | None = None, label: Names | None = None, weight: str | None = None
) -> FileSource:
    """Use Zarr stores as a source of examples.

    Args:
        paths: a store, a pattern, or a list of stores, which are read one after the other. A store that is a single
            array has one column of the store's name, without ".zarr".
        features: arrays of the features: a name such as "train/x", a list of names for one vector, or a dict of
            inputs. Default: all arrays but label and weight.
        label: arrays of the label. Default: the array "label", "labels" or "y".
        weight: array of the weight. Default: the array "weight", "weights" or "sample_weight".

    Raises:
        DataError: a store is missing or damaged, or an array holds other things than numbers.
        ConfigurationError: an array does not exist, or zarr is not installed.
    """
    stores = listed(paths, suffixes=(), kind="Zarr stores", folders=True)
    require_extra("zarr", extra="zarr", what=f"Reading {stores[0]}")
    local_copies(stores)  # at once
    source = FileSource(ZarrRows, stores, features=features, label=label, weight=weight)
    for index in range(len(stores)):
        source.opened(index).tell_missing_chunks(source.names)
    return source


class ZarrRows:
    """One open Zarr store."""

    def __init__(self, path: Path) -> None:
        import zarr

        self._path = path
        with readable(path, _KIND):
            local = local_copy(path)
            make = zarr.storage.LocalStore if local.is_dir() else zarr.storage.ZipStore
            self._store: Any = make(local, read_only=True)
            opened = zarr.open(store=self._store, mode="r")
            self._arrays = {path.stem: opened} if isinstance(opened, zarr.Array) else _arrays_of(opened)
            self.columns = {name: _column(array, local) for name, array in self._arrays.items()}

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, np.ndarray]:
        """Return the rows start .. stop - 1 of some arrays."""
        with readable(self._path, _KIND):
            return {name: np.asarray(self._arrays[name][start:stop]) for name in names}

    def tell_missing_chunks(self, names: Sequence[str]) -> None:
        """Warn of arrays of which chunks are missing."""
        with readable(self._path, _KIND):
            for name in names:
                if missing := _missing_chunks(self._arrays[name]):
                    count, key, first, stop = missing
                    _LOG.warning(
                        f"{self._path}: {name!r} lacks {count:,} chunks, the first one {key!r} of rows {first:,} to "
                        f"{stop - 1:,}. Zarr reads them as {self._arrays[name].fill_value}, which may be as they were "
                        "written. Otherwise copy the store again."
                    )

    def close(self) -> None:
        """Close the store."""
        self._store.close()


def _arrays_of(group: Any) -> dict[str, Any]:
    import zarr

    members = group.members(max_depth=None)
    return {name: member for name, member in sorted(members) if isinstance(member, zarr.Array)}


def _column(array: Any, path: Path) -> Column:
    if not array.shape:
        return Column(0, problem="is a single value; an array of examples has at least one axis.")
    if array.dtype.kind not in NUMBERS:
        return Column(array.shape[0], problem=f"is of type {array.dtype}, which is no number. Write it as numbers.")
    if unknown := sorted(set(_codec_names(array.metadata.to_dict())) - _CODECS):
        return Column(
            array.shape[0],
            problem=f"is stored by the codec {unknown[0]!r}, which is not read, because a codec may run code. "
            "Write it by blosc, zstd or gzip.",
        )
    rows = array.shape[0]
    num_bytes = _num_bytes(path, enough=rows // MAX_ROWS_PER_BYTE + 1) if rows > FEWEST_ROWS else 0
    return chunked_column(array.shape, array.dtype, array.shards or array.chunks, num_bytes)


def _missing_chunks(array: Any) -> tuple[int, str, int, int] | None:
    """Return the number of chunks that a store lacks, and of the first one its key and its rows, start and stop."""
    from zarr.core.sync import sync

    stored = array.shards or array.chunks
    sides = [-(-side // chunk) for side, chunk in zip(array.shape, stored, strict=True)]
    prefix = f"{array.path}/" if array.path else ""

    async def found() -> set[str]:
        return {key.removeprefix(prefix) async for key in array.store.list_prefix(prefix)}

    present = {key for key in sync(found()) if not key.endswith(_METADATA)}
    missing = math.prod(sides) - len(present)
    if missing <= 0:
        return None
    keys = ((place, array.metadata.encode_chunk_key(place)) for place in _places(sides))
    place, key = next(pair for pair in keys if pair[1] not in present)
    first = place[0] * stored[0]
    return missing, key, first, min(first + stored[0], array.shape[0])


def _places(sides: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the coordinates of all chunks, one by one; `itertools.product` would hold all numbers of each side."""
    if not sides:
        yield ()
        return
    for first in range(sides[0]):
        yield from ((first, *rest) for rest in _places(sides[1:]))


def _codec_names(metadata: Any) -> Iterator[str]:
    """Yield the names of all codecs of an array, also of those inside a shard."""
    if isinstance(metadata, Mapping):
        for key in ("codecs", "index_codecs", "filters", "compressor", "configuration"):
            yield from _codec_names(metadata.get(key))
        if isinstance(name := metadata.get("id", metadata.get("name")), str):
            yield name.removeprefix("numcodecs.")
    elif isinstance(metadata, (list, tuple)):
        for codec in metadata:
            yield from _codec_names(codec)
    elif metadata is not None:
        yield from _codec_names(metadata.get_config() if hasattr(metadata, "get_config") else metadata.to_dict())


def _num_bytes(path: Path, enough: int) -> int:
    """Return the bytes of a store, or a part of them that is `enough`."""
    if not path.is_dir():
        return path.stat().st_size
    total = 0
    for folder, _, files in os.walk(path):
        for file in files:
            total += (Path(folder) / file).stat().st_size
            if total >= enough:
                return total
    return total
