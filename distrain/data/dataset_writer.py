"""Writes a prepared data set: shard files, then the index.

Decides: which rows a shard holds. Never: what a feature means.

    writer = DatasetWriter(folder, kind="ngram", num_features=20_000, classes=["World", "Sports"])
    writer.write("train", blocks_of_rows)
    writer.finish()
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from distrain.data.dataset_index import FORMAT_VERSION, INDEX_NAME, KINDS, PARTS, index_digest
from distrain.data.rows import Rows, concatenate_rows
from distrain.data.shards import ARRAY_DTYPES, Shard, ShardFile, crc32_of
from distrain.text.array_exchange import ProcessGroup, SingleProcess

SHARD_BYTES = 64 * 2**20  # a shard is closed at this size, so that writing holds little and reading seeks little


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
        self._index["digest"] = index_digest(self._index)
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
        np.save(path, np.ascontiguousarray(array, ARRAY_DTYPES[array_name]), allow_pickle=False)
        return ShardFile(name, path.stat().st_size, crc32_of(path))


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
