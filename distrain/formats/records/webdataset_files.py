"""Tar shards of WebDataset as a source.

Decides: what the ending of a file makes of its content. Never: which files are a sample (`tar_samples.py`).

    source = webdataset("shards/train-*.tar", features="jpg", label="cls", size=(224, 224))
    pixels, label = source[0]

    jpg, jpeg, png, webp, bmp, gif     pixels, uint8 `[height, width, channels]`
    cls, cls2, id, index, inx          a whole number
    npy                                an array; pickle is never read
    txt, text, transcript              a text, for `map=`
    json                               the content of the JSON, for `map=`
    any other ending                   bytes, for `map=`
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distrain.errors import DataError
from distrain.formats.columns import Column, Names, stacked_rows
from distrain.formats.file_list import Paths, listed
from distrain.formats.file_source import FileSource, MappedSource
from distrain.formats.pictures.decoding import CHANNELS, ImageForm, decoded
from distrain.formats.pictures.decoding_threads import in_threads
from distrain.formats.records.range_file import RangeFile
from distrain.formats.records.record_index import MAX_OPEN_FILES, RecordIndex, open_index
from distrain.formats.records.tar_samples import find_samples, key_at
from distrain.remote.local_copy import local_copies, local_copy

MAX_FIELD_BYTES = 2**30  # of one file of a sample
_LABEL = "cls"
_PIXELS = ("jpg", "jpeg", "png", "webp", "bmp", "gif")
_NUMBERS = ("cls", "cls2", "id", "index", "inx")
_TEXTS = ("txt", "text", "transcript")


def webdataset(
    paths: Paths,
    *,
    features: Names | None = None,
    label: Names | None = None,
    weight: str | None = None,
    **form: Any,
) -> FileSource:
    """Use tar shards as a source of examples.

    The places of the samples are found once, and kept in a hidden file beside each shard, or in the user's cache
    folder.

    Args:
        paths: a shard, a folder of `.tar` files, a pattern, or a list of these. Several are read one after the other.
        features: fields of the input: a name such as "jpg", a list of names for one vector, or a dict of inputs.
            Default: all fields but label and weight.
        label: fields of the label. Default: the field "cls", "label", "labels" or "y".
        weight: field of the weight. Default: the field "weight", "weights" or "sample_weight".
        **form: how pictures become pixels: size, color_mode and the other fields of `ImageForm`.

    Raises:
        DataError: a shard is missing, damaged or compressed.
        ConfigurationError: a field does not exist, or an argument is wrong.
    """
    files = listed(paths, suffixes=(".tar",), kind="tar shards")
    local_copies(files)  # at once
    make = partial(_Samples, form=ImageForm(**form))
    first = _index(files[0])
    if not len(first.table):
        raise DataError(f"{files[0]} has no samples, which are files such as 17.jpg and 17.cls.")
    if label is None and _LABEL in first.names:
        label = _LABEL
    return MappedSource(make, files, features=features, label=label, weight=weight, max_open=MAX_OPEN_FILES)


def _index(path: Path) -> RecordIndex:
    return open_index(local_copy(path), "webdataset", partial(find_samples, path))


class _Samples:
    """The samples of one shard."""

    def __init__(self, path: Path, form: ImageForm) -> None:
        self._path, self._form = path, form
        index = _index(path)
        self._table, self._fields = index.table, {name: number for number, name in enumerate(index.names)}
        self._file = RangeFile(local_copy(path))
        self.columns = {name: _column(name, len(self._table), form) for name in index.names}

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, np.ndarray]:
        return self.take(names, np.arange(start, stop))

    def take(self, names: Sequence[str], rows: np.ndarray) -> dict[str, np.ndarray]:
        found = in_threads(partial(self._sample, names), rows.tolist())
        return {name: stacked_rows(self.columns[name], [own[name] for own in found]) for name in names}

    def close(self) -> None:
        self._file.close()

    def _sample(self, names: Sequence[str], row: int) -> dict[str, Any]:
        return {name: self._value(name, row) for name in names}

    def _value(self, name: str, row: int) -> Any:
        column = 1 + 2 * self._fields[name]
        offset, size = self._table[row, column : column + 2].tolist()
        if offset < 0:
            raise DataError(
                f"{self._title(row)} has no {name!r}. Write the shard again, with it or without the sample."
            )
        if size > MAX_FIELD_BYTES:
            raise DataError(
                f"{self._title(row)} has a {name!r} of {size:,} bytes; at most {MAX_FIELD_BYTES:,} are read."
            )
        content = self._file.read(offset, offset + size)
        if _kind(name) in _PIXELS:
            return decoded(content, self._form, f"{self._title(row)}: the {name!r}")
        try:
            return _DECODERS.get(_kind(name), bytes)(content)
        except Exception as error:  # NumPy raises many types for a damaged header, also those of Python's tokenizer
            raise DataError(f"{self._title(row)} has a damaged {name!r}: {' '.join(str(error).split())}.") from None

    def _title(self, row: int) -> str:
        return f"{self._path}: sample {key_at(self._path, int(self._table[row, 0]))!r}"


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


def _column(name: str, rows: int, form: ImageForm) -> Column:
    kind = _kind(name)
    if kind in _NUMBERS:
        return Column(rows, np.dtype(np.int64), ())
    if kind in _PIXELS and form.size is not None:
        return Column(rows, np.dtype(np.uint8), (*form.size, CHANNELS[form.color_mode]))
    return Column(rows)


def _array(content: bytes) -> np.ndarray:
    file = io.BytesIO(content)
    array = np.lib.format.read_array(file, allow_pickle=False)
    if file.read(1):
        raise ValueError("it goes on behind its array")
    return array


def _number(content: bytes) -> int:
    if len(content) > 64:  # bytes; `int` takes quadratic time for long numbers
        raise ValueError("it is no whole number")
    number = int(content)
    if not -(2**63) <= number < 2**63:
        raise ValueError("it is no whole number of 64 bits")
    return number


_DECODERS: dict[str, Callable[[bytes], Any]] = {
    **dict.fromkeys(_NUMBERS, _number),
    **dict.fromkeys(_TEXTS, bytes.decode),
    "json": json.loads,
    "npy": _array,
}
