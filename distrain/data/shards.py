"""Prepared data on disk: ragged rows in memory-mapped shard files, and the index that names and checks them.

Decides: the files of a prepared data set and when they count as damaged. Never: what a feature means, or who
reads which row.

    writer = DatasetWriter(folder, kind="ngram", num_features=20_000, classes=["World", "Sports"])
    writer.write("train", blocks_of_rows)
    writer.finish()
    rows = open_dataset(folder).parts["train"].read(1000, 1128)

A data set is a folder. `dataset.json` is written last, so a folder without it is not a data set. A shard is one
`.npy` file per array (`train-00000.columns.npy`): NumPy's own format, read without pickle. Everything that is read is
checked to be in range, as row kernels index memory by it.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from distrain.batch import Memory
from distrain.data.readahead import read_ahead, read_on_request
from distrain.data.rows import Rows, Span, concatenate_rows, pick_rows, span_lengths
from distrain.errors import DataError
from distrain.text.array_exchange import ProcessGroup, SingleProcess

INDEX_NAME = "dataset.json"
FORMAT_VERSION = 1
KINDS = ("ngram", "sequence")
PARTS = ("train", "test")
SHARD_BYTES = 64 * 2**20  # a shard is closed at this size, so that writing holds little and reading seeks little


@dataclass(frozen=True)
class ShardFile:
    """One array of one shard: its file name, size in bytes and CRC-32."""

    name: str
    bytes: int
    crc32: int


@dataclass(frozen=True)
class Shard:
    """Rows `first_row` up to `first_row + num_rows` of a part; `files` by array name."""

    first_row: int
    num_rows: int
    files: Mapping[str, ShardFile]


class DatasetWriter:
    """Writes one prepared data set into an existing, empty folder.

    Args:
        directory: the folder; `dataset.json` appears in it only at `finish`.
        kind: "ngram" (rows have values) or "sequence" (rows are word ids).
        num_features: columns are below this number.
        classes: the class names, in label order.
        max_length: longest row, for sequences.
        rows_per_shard: a shard holds at most this many rows, and at most about 64 MiB.
        group: the processes that write it, each of them its share of the shards: all must make the same calls.
    """

    def __init__(
        self,
        directory: Path,
        *,
        kind: str,
        num_features: int,
        classes: Sequence[str],
        max_length: int | None = None,
        rows_per_shard: int = 65_536,
        group: ProcessGroup | None = None,
    ) -> None:
        assert kind in KINDS
        assert rows_per_shard >= 1
        self._directory = Path(directory)
        self._rows_per_shard = rows_per_shard
        self._team: ProcessGroup = group or SingleProcess()
        self._index: dict[str, Any] = {
            "format": "distrain-dataset",
            "version": FORMAT_VERSION,
            "kind": kind,
            "num_features": num_features,
            "max_length": max_length,
            "classes": list(classes),
            "parts": {},
        }

    def write(self, part: str, blocks: Iterable[Rows]) -> int:
        """Write one part ("train" or "test") from blocks of any size; returns its number of rows."""
        assert part in PARTS
        own: list[Shard] = []
        num_rows = 0
        for number, pieces in enumerate(_shards(blocks, self._rows_per_shard)):
            if number % self._team.size == self._team.rank:
                own.append(self._shard(f"{part}-{number:05d}", num_rows, concatenate_rows(pieces)))
            num_rows += sum(piece.num_rows for piece in pieces)
        told = self._team.all_gather_bytes(json.dumps([asdict(shard) for shard in own]).encode())
        shards = sorted(chain.from_iterable(map(json.loads, told)), key=itemgetter("first_row"))
        self._index["parts"][part] = {"num_rows": num_rows, "shards": shards}
        return num_rows

    def finish(self, *, vectorizer: str | None = "vectorizer", details: Mapping[str, object] | None = None) -> str:
        """Write `dataset.json`, which makes the folder a data set; returns the data digest (hex)."""
        self._index["vectorizer"] = vectorizer
        self._index["details"] = dict(details or {})
        self._index["digest"] = _digest(self._index)
        text = json.dumps(self._index, indent=1, ensure_ascii=False) + "\n"
        (self._directory / INDEX_NAME).write_text(text, encoding="utf-8")
        return self._index["digest"]

    def _shard(self, stem: str, first_row: int, rows: Rows) -> Shard:
        arrays = {"row_splits": rows.row_splits, "columns": rows.columns, "labels": rows.labels}
        if rows.values is not None:
            arrays["values"] = rows.values
        files = {name: self._save(f"{stem}.{name}.npy", name, array) for name, array in arrays.items()}
        return Shard(first_row, rows.num_rows, files)

    def _save(self, name: str, array_name: str, array: np.ndarray) -> ShardFile:
        path = self._directory / name
        np.save(path, np.ascontiguousarray(array, _DTYPES[array_name]), allow_pickle=False)
        return ShardFile(name, path.stat().st_size, crc32_of(path))


_DTYPES = {"row_splits": np.int64, "columns": np.int32, "values": np.float32, "labels": np.int32}


def _shards(blocks: Iterable[Rows], rows_per_shard: int) -> Iterator[list[Rows]]:
    """The rows of each shard, in pieces; which are in which does not depend on how they were handed in."""
    waiting: list[Rows] = []
    num_rows = num_bytes = 0
    for block in blocks:
        while block.num_rows:
            width = 8 if block.values is not None else 4
            room = int(np.searchsorted(block.row_splits * width, SHARD_BYTES - num_bytes, side="right")) - 1
            room = max(0 if waiting else 1, room)  # one row may be larger than a shard should be
            taken = min(rows_per_shard - num_rows, room, block.num_rows)
            if taken:
                waiting.append(block.slice(0, taken))
                num_rows += taken
                num_bytes += int(block.row_splits[taken]) * width
                block = block.slice(taken, block.num_rows)
            if block.num_rows:
                yield waiting
                waiting, num_rows, num_bytes = [], 0, 0
    if waiting:
        yield waiting


def crc32_of(path: Path) -> int:
    """CRC-32 of a file, read in pieces of 1 MiB."""
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(2**20):
            checksum = zlib.crc32(piece, checksum)
    return checksum


def _digest(index: Mapping[str, Any]) -> str:
    content = {key: value for key, value in index.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _large_arrays(rows: Rows) -> list[np.ndarray]:
    return [array for array in (rows.columns, rows.values) if array is not None]


@dataclass(frozen=True)
class Part:
    """The training or the test rows of a data set."""

    directory: Path
    name: str
    kind: str
    num_features: int
    num_classes: int
    num_rows: int
    shards: Sequence[Shard]
    _arrays: dict[int, Rows] = field(default_factory=dict, repr=False)

    @cached_property
    def labels(self) -> np.ndarray:
        """All labels, int32 `[num_rows]`."""
        if not self.shards:
            return np.zeros(0, np.int32)
        return np.concatenate([self._open(number).labels for number in range(len(self.shards))])

    def row_lengths(self) -> np.ndarray:
        """Number of columns of every row, int64 `[num_rows]`."""
        return self.lengths(np.array([[0, self.num_rows]]))

    def lengths(self, runs: np.ndarray) -> np.ndarray:
        """Number of columns of every row of runs (start, stop), int64; the rows themselves are not read."""
        return span_lengths(span for _, span in self._spans(runs))

    def read(self, start: int, stop: int) -> Rows:
        """Rows `start` up to `stop` (views of the files where one shard holds them all), checked to be in range."""
        assert 0 <= start < stop <= self.num_rows
        run = np.array([[start, stop]])
        self.expect(run)
        return concatenate_rows([self._checked(*span) for span in self._spans(run)])

    def gather(self, runs: np.ndarray, chosen: np.ndarray, memory: Memory = np.empty) -> Rows:
        """Some of the rows of several runs, copied, and checked to be in range.

        Args:
            runs: int64 `[r, 2]`: (start, stop) of each run; read in this order.
            chosen: int64 `[k]`: row numbers within the runs one after the other, in the order wanted, none twice.
            memory: from where the block's columns and values come.
        """
        spans = list(self._spans(runs))
        rows, highest_column = pick_rows([span for _, span in spans], chosen, memory)
        if highest_column >= self.num_features or not self._are_labels(rows.labels):
            for shard, span in spans:
                self._checked(shard, span)  # says which file is damaged
        return rows

    def expect(self, runs: np.ndarray) -> None:
        """Let the system begin to read the rows of runs (start, stop) from disk, as they are asked for soon."""
        bounds: dict[int, tuple[Rows, list[tuple[int, int]]]] = {}
        for shard, (rows, first, last) in self._spans(runs):
            of_shard = bounds.setdefault(shard.first_row, (rows, []))
            of_shard[1].append((int(rows.row_splits[first]), int(rows.row_splits[last])))
        for rows, of_rows in bounds.values():
            for array in _large_arrays(rows):
                read_ahead(array, of_rows)

    def _spans(self, runs: np.ndarray) -> Iterator[tuple[Shard, Span]]:
        """Where the rows of runs (start, stop) lie."""
        for start, stop in runs.tolist():
            number = bisect_right(self._first_rows, start) - 1
            while start < stop:
                shard = self.shards[number]
                last = min(stop - shard.first_row, shard.num_rows)
                yield shard, Span(self._open(number), start - shard.first_row, last)
                start, number = shard.first_row + last, number + 1

    @cached_property
    def _first_rows(self) -> list[int]:
        return [shard.first_row for shard in self.shards]

    def _open(self, number: int) -> Rows:
        if number not in self._arrays:
            shard = self.shards[number]
            arrays = {name: self._map(name, file) for name, file in shard.files.items()}
            rows = Rows(arrays["row_splits"], arrays["columns"], arrays.get("values"), arrays["labels"])
            lengths_agree = (
                len(rows.labels) == shard.num_rows
                and len(rows.row_splits) == shard.num_rows + 1
                and rows.row_splits[0] == 0
                and rows.row_splits[-1] == len(rows.columns)
                and bool(np.all(np.diff(rows.row_splits) >= 0))
                and (rows.values is None or len(rows.values) == len(rows.columns))
            )
            if not lengths_agree:
                raise self._damaged(shard, "its arrays do not fit together")
            for array in _large_arrays(rows):
                read_on_request(array)
            self._arrays[number] = rows
        return self._arrays[number]

    def _map(self, array_name: str, file: ShardFile) -> np.ndarray:
        path = self.directory / file.name
        try:
            array = np.lib.format.open_memmap(path, mode="r")  # knows no pickle
        except Exception as error:  # over a damaged header NumPy raises nearly anything
            reason = str(error) or type(error).__name__
            raise DataError(f"{path} cannot be read ({reason}). Run 'distrain prepare' again.") from None
        if array.dtype != _DTYPES[array_name] or array.ndim != 1:
            raise DataError(f"{path} holds {array.dtype} of rank {array.ndim}. Run 'distrain prepare' again.")
        return np.asarray(array)  # a plain one: memmap's own slices take ten times as long

    def _checked(self, shard: Shard, span: Span) -> Rows:
        rows = span.rows.slice(span.first, span.last)
        if rows.columns.size and not (rows.columns.min() >= 0 and rows.columns.max() < self.num_features):
            raise self._damaged(shard, f"a column is outside 0..{self.num_features - 1}")
        if not self._are_labels(rows.labels):
            raise self._damaged(shard, f"a label is outside 0..{self.num_classes - 1}")
        return rows

    def _are_labels(self, labels: np.ndarray) -> bool:
        return not labels.size or (labels.min() >= 0 and labels.max() < self.num_classes)

    def _damaged(self, shard: Shard, why: str) -> DataError:
        name = shard.files["columns"].name
        return DataError(f"{self.directory / name} is damaged: {why}. Run 'distrain prepare' again.")


@dataclass(frozen=True)
class Dataset:
    """An opened data set.

    Attributes:
        directory: where it lies.
        kind: "ngram" or "sequence".
        num_features: columns are below this number.
        max_length: longest row (sequences), else None.
        classes: class names in label order.
        parts: "train" and "test".
        digest: hex digest of the index, and so of all files through their checksums.
        vectorizer: the folder of the vectorizer, or None.
        details: what `prepare` noted about its choices.
    """

    directory: Path
    kind: str
    num_features: int
    max_length: int | None
    classes: tuple[str, ...]
    parts: Mapping[str, Part]
    digest: str
    vectorizer: Path | None
    details: Mapping[str, Any]


def open_dataset(directory: Path, *, verify: bool = True) -> Dataset:
    """Open a prepared data set.

    Args:
        directory: the folder that `distrain prepare` wrote.
        verify: read every shard file once and compare its checksum; sizes are compared in any case.

    Raises:
        DataError: there is no data set, it is of another version, or a file is missing, cut or changed.
    """
    directory = Path(directory)
    path = directory / INDEX_NAME
    cure = "Run 'distrain prepare' again."
    if not path.is_file():
        raise DataError(
            f"{directory} is not a prepared data set: it has no {INDEX_NAME}. Make it with 'distrain prepare'."
        )
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["format"] != "distrain-dataset" or index["version"] != FORMAT_VERSION:
            raise DataError(
                f"{path} is of format {index['format']!r} version {index['version']!r}; "
                f"this distrain reads version {FORMAT_VERSION}. {cure}"
            )
        if index["digest"] != _digest(index):
            raise DataError(f"{path} was changed after it was written: its digest does not fit. {cure}")
        dataset = _parse(directory, index)
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error}). {cure}") from None
    for part in dataset.parts.values():
        for shard in part.shards:
            for file in shard.files.values():
                _verify(directory / file.name, file, checksum=verify)
    return dataset


def _parse(directory: Path, index: Mapping[str, Any]) -> Dataset:
    if index["kind"] not in KINDS or set(index["parts"]) != set(PARTS):
        raise ValueError("unknown kind or parts")
    classes = tuple(str(name) for name in index["classes"])
    parts = {}
    for name, content in index["parts"].items():
        shards = []
        next_row = 0
        for entry in content["shards"]:
            files = {key: ShardFile(**value) for key, value in entry["files"].items()}
            for file in files.values():
                if not (_is_plain_name(file.name) and isinstance(file.bytes, int)):
                    raise ValueError(f"a file named {file.name!r} of {file.bytes!r} bytes")
            if set(files) != set(_DTYPES) - ({"values"} if index["kind"] == "sequence" else set()):
                raise ValueError(f"a shard of {', '.join(files)}")
            num_rows = entry["num_rows"]
            if entry["first_row"] != next_row or not (isinstance(num_rows, int) and num_rows > 0):
                raise ValueError(f"a shard that starts at row {entry['first_row']!r}")
            shards.append(Shard(next_row, num_rows, files))
            next_row += num_rows
        if content["num_rows"] != next_row:
            raise ValueError(f"{content['num_rows']!r} rows, but shards of {next_row}")
        parts[name] = Part(
            directory, name, index["kind"], int(index["num_features"]), len(classes), next_row, tuple(shards)
        )
    if not (index["vectorizer"] is None or _is_plain_name(index["vectorizer"])):
        raise ValueError(f"a vectorizer named {index['vectorizer']!r}")
    return Dataset(
        directory=directory,
        kind=index["kind"],
        num_features=int(index["num_features"]),
        max_length=None if index["max_length"] is None else int(index["max_length"]),
        classes=classes,
        parts=parts,
        digest=index["digest"],
        vectorizer=None if index["vectorizer"] is None else directory / index["vectorizer"],
        details=dict(index["details"]),
    )


def _is_plain_name(name: str) -> bool:
    """Whether it names something inside a folder; an index from elsewhere must not reach beyond its own."""
    return name not in ("", "..") and Path(name).name == name


def _verify(path: Path, file: ShardFile, *, checksum: bool) -> None:
    cure = "Run 'distrain prepare' again, or copy the file anew."
    if not path.is_file():
        raise DataError(f"{path} is missing. {cure}")
    size = path.stat().st_size
    if size != file.bytes:
        raise DataError(f"{path} has {size:,} bytes instead of {file.bytes:,}: it was cut or changed. {cure}")
    if checksum and crc32_of(path) != file.crc32:
        raise DataError(f"{path} was changed: its checksum does not fit. {cure}")
