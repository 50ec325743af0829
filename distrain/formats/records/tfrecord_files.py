"""TFRecord files of `tf.train.Example` as a source.

Decides: the array of each feature. Never: where records lie (`tfrecord_records.py`), or what their bytes mean
(`example_proto.py`).

    source = tfrecord("data/train-*.tfrecord", features="image", label="label", shapes={"image": (28, 28)})
    image, label = source[0]

The first record says how many values a feature has in every record. A single value is a number or a bytes object, and
several values are an array `[k]`. With the shape (-1,) lengths may differ, and `map=` makes them equal.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from distrain.errors import ConfigurationError, DataError
from distrain.formats.columns import Column, Names, shown, stacked_rows
from distrain.formats.file_list import Paths, listed
from distrain.formats.file_source import FileSource, MappedSource
from distrain.formats.records.example_proto import Feature, NoExampleError, parse_example
from distrain.formats.records.range_file import RangeFile
from distrain.formats.records.record_index import MAX_OPEN_FILES, open_index
from distrain.formats.records.tfrecord_records import find_records, record_between
from distrain.remote.local_copy import local_copies, local_copy
from distrain.remote.path import RemotePath, text_of, to_path

_SUFFIXES = (".tfrecord", ".tfrecords", ".tfrec")
_CURE = "Write the record again, or leave the feature out; lists of any length have the shape (-1,) in shapes=."


def tfrecord(
    paths: Paths,
    *,
    features: Names | None = None,
    label: Names | None = None,
    weight: str | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> FileSource:
    """Use TFRecord files of `tf.train.Example` as a source of examples.

    The places of the records are found once, and kept in a hidden file beside each file, or in the user's cache folder.

    Args:
        paths: a file, a folder, a pattern, or a list of these. Several are read one after the other.
        features: features of the input: a name, a list of names for one vector, or a dict of inputs.
            Default: all features but label and weight.
        label: features of the label. Default: the feature "label", "labels" or "y".
        weight: feature of the weight. Default: the feature "weight", "weights" or "sample_weight".
        shapes: shape of features by name. One side may be -1, for any length; () is a single value.

    Raises:
        DataError: a file is missing, damaged or compressed, or its records are no examples.
        ConfigurationError: a feature does not exist, or a package is not installed.
    """
    if isinstance(paths, (str, os.PathLike, RemotePath)) and (folder := to_path(paths)).is_dir():
        paths = f"{glob.escape(text_of(folder))}/*.tfrec*"  # TensorFlow Datasets writes "x.tfrecord-00000-of-00010"
    files = listed(paths, suffixes=_SUFFIXES, kind="TFRecord files")
    local_copies(files)  # at once
    columns = _columns(files, shapes or {})
    make = partial(_Records, columns=columns, takes_all=features is None)
    return MappedSource(make, files, features=features, label=label, weight=weight, max_open=MAX_OPEN_FILES)


@dataclass(frozen=True)
class _Column:
    """A feature of all records.

    Attributes:
        kind: NumPy's kind of its values: "O" for bytes, "f" or "i".
        shape: its shape, with -1 for any length.
    """

    kind: str
    shape: tuple[int, ...]

    @property
    def column(self) -> Column:
        """The column without its number of rows."""
        dtype = np.dtype({"O": object, "f": np.float32, "i": np.int64}[self.kind])
        return Column(0, dtype, None if -1 in self.shape else self.shape)


class _Records:
    """The records of one file; if a source `takes_all` features, no record may have others than the columns."""

    def __init__(self, path: Path, columns: Mapping[str, _Column], *, takes_all: bool = False) -> None:
        self._path, self._columns, self._takes_all = path, columns, takes_all
        self._starts = open_index(local_copy(path), "tfrecord", partial(find_records, path)).table[:, 0]
        self._file = RangeFile(local_copy(path))
        self.columns = {name: replace(own.column, rows=len(self)) for name, own in columns.items()}

    def __len__(self) -> int:
        return len(self._starts) - 1

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, np.ndarray]:
        whole = memoryview(self._file.read(self._starts[start], self._starts[stop]))
        bounds = self._starts[start : stop + 1] - self._starts[start]
        frames = (whole[begin:end] for begin, end in pairwise(bounds))
        return self._arrays(names, range(start, stop), frames)

    def take(self, names: Sequence[str], rows: np.ndarray) -> dict[str, np.ndarray]:
        frames = (memoryview(self._file.read(*self._starts[row : row + 2])) for row in rows.tolist())
        return self._arrays(names, rows.tolist(), frames)

    def first(self) -> dict[str, Feature]:
        """Return the first record."""
        return self._parsed(0, memoryview(self._file.read(*self._starts[:2])))

    def close(self) -> None:
        self._file.close()

    def _parsed(self, row: int, frame: memoryview) -> dict[str, Feature]:
        content = record_between(self._path, row, frame)
        try:
            return parse_example(content)
        except NoExampleError as error:
            raise DataError(f"{self._path}: record {row:,} is no tf.train.Example: {error}.") from None

    def _arrays(self, names: Sequence[str], rows: Sequence[int], frames: Iterable[memoryview]) -> dict[str, np.ndarray]:
        values: dict[str, list] = {name: [] for name in names}
        for row, frame in zip(rows, frames, strict=True):
            found = self._parsed(row, frame)
            if self._takes_all and (more := found.keys() - self._columns.keys()):
                raise DataError(
                    f"{self._path}: record {row:,} has the feature {min(more)!r}, unlike the first record. Name the "
                    "features that all records have by features= and label=, or write the records again."
                )
            for name in names:
                try:
                    values[name].append(_shaped(self._columns[name], found.get(name, [])))
                except ValueError as error:
                    raise DataError(
                        f"{self._path}: record {row:,} has {error} as the feature {name!r}. {_CURE}"
                    ) from None
        return {name: stacked_rows(self.columns[name], found) for name, found in values.items()}


def _columns(files: Sequence[Path], shapes: Mapping[str, Sequence[int]]) -> dict[str, _Column]:
    """Return the features of the first record of all files."""
    for path in files:
        records = _Records(path, {})
        if not len(records):
            continue
        found = records.first()
        records.close()
        if unknown := [name for name in shapes if name not in found]:
            raise ConfigurationError(f"shapes= names {unknown[0]!r}, but the features of {path} are {shown(found)}.")
        if not found:
            raise DataError(f"{path}: record 0 has no features.")
        return {name: _column(name, feature, shapes.get(name)) for name, feature in found.items()}
    raise DataError(f"{files[0]} has no records; training needs at least one example.")


def _column(name: str, feature: Feature, shape: Sequence[int] | None) -> _Column:
    kind = feature.dtype.kind if isinstance(feature, np.ndarray) else "O"
    if shape is None:
        return _Column(kind, () if len(feature) == 1 else (len(feature),))
    sides = tuple(shape) if isinstance(shape, (tuple, list)) else (None,)
    if not all(type(side) is int and side >= -1 for side in sides) or sides.count(-1) > 1:
        raise ConfigurationError(f"shapes= has {shape!r} for {name!r}; give whole numbers, at most one of them -1.")
    return _Column(kind, sides)


def _shaped(column: _Column, feature: Feature) -> np.ndarray | bytes:
    """Return a feature in the shape of its column.

    Raises:
        ValueError: the feature is missing, or has other values; the message is what the record has.
    """
    kinds = {"O": "texts or bytes", "f": "floats", "i": "whole numbers"}
    values = feature if isinstance(feature, np.ndarray) else np.fromiter(feature, object, len(feature))
    if not len(values):
        if -1 not in column.shape:
            raise ValueError("nothing")
        values = values.astype(column.column.dtype)
    if values.dtype.kind != column.kind:
        raise ValueError(f"{kinds[values.dtype.kind]} in place of {kinds[column.kind]}")
    try:
        return values.reshape(column.shape)[()]
    except ValueError:
        raise ValueError(f"{len(values):,} values, not the shape {column.shape},") from None
