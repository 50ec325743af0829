"""Writes a prepared data set: shard files, then the index.

Decides: which rows go into which shard. Never: what a feature means.

    writer = DatasetWriter(folder, kind="ngram", num_features=20_000, classes=["World", "Sports"])
    writer.write("train", pieces_of_rows)
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

from distrain.array_files import save_npy
from distrain.cluster.process_group import ProcessGroup, SingleProcess
from distrain.data.prepared.dataset_index import FORMAT_VERSION, INDEX_NAME, KINDS, PARTS, TASK_VERSION
from distrain.data.prepared.rows import Rows, concatenate_rows
from distrain.data.prepared.shards import Shard, ShardFile, array_dtypes
from distrain.files import json_bytes, naming
from distrain.fingerprints import digest_of, fingerprint_of

SHARD_BYTES = 64 * 2**20  # small enough to build a shard in memory, large enough that reading seeks rarely


class DatasetWriter:
    """Writes one prepared data set into an existing, empty folder.

    Args:
        directory: the folder; `finish` writes `dataset.json`.
        kind: "ngram" (rows have values) or "sequence" (rows are word ids).
        num_features: exclusive upper bound of columns.
        classes: class names in label order.
        max_length: words in the longest sequence; None for n-grams.
        task: "classification", "multilabel" or "regression".
        target_mean: mean of the training targets of a regression.
        target_deviation: their standard deviation.
        has_weights: whether rows have weights.
        rows_per_shard: most rows in a shard; a shard also ends at about 64 MiB.
        group: processes that write the data set together; each writes every size-th shard, and all make the same calls.
    """

    def __init__(
        self,
        directory: Path,
        *,
        kind: str,
        num_features: int,
        classes: Sequence[str],
        max_length: int | None = None,
        task: str = "classification",
        target_mean: float | None = None,
        target_deviation: float | None = None,
        has_weights: bool = False,
        rows_per_shard: int = 65_536,
        group: ProcessGroup | None = None,
    ) -> None:
        assert kind in KINDS
        assert rows_per_shard >= 1
        self._directory = Path(directory)
        self._rows_per_shard = rows_per_shard
        self._group: ProcessGroup = group or SingleProcess()
        self._index: dict[str, Any] = {
            "format": "distrain-dataset",
            "version": FORMAT_VERSION if task == "classification" and not has_weights else TASK_VERSION,
            "kind": kind,
            "num_features": num_features,
            "max_length": max_length,
            "classes": list(classes),
            "parts": {},
        }
        if self._index["version"] == TASK_VERSION:
            targets = {"target_mean": target_mean, "target_deviation": target_deviation}
            self._index |= {"task": task, "has_weights": has_weights, **targets}
        self._dtypes = array_dtypes(kind, task, has_weights=has_weights)

    def write(self, part: str, pieces: Iterable[Rows]) -> int:
        """Write one part, "train" or "test", from pieces of any size; return the number of rows."""
        assert part in PARTS
        own: list[Shard] = []
        num_rows = 0
        for index, shard_pieces in enumerate(_cut_into_shards(pieces, self._rows_per_shard)):
            if index % self._group.size == self._group.rank:
                own.append(self._write_shard(f"{part}-{index:05d}", num_rows, concatenate_rows(shard_pieces)))
            num_rows += sum(piece.num_rows for piece in shard_pieces)
        gathered = self._group.all_gather_bytes(json.dumps([asdict(shard) for shard in own]).encode())
        shards = sorted(chain.from_iterable(map(json.loads, gathered)), key=itemgetter("first_row"))
        self._index["parts"][part] = {"num_rows": num_rows, "shards": shards}
        return num_rows

    def finish(self, *, vectorizer: str | None = None, details: Mapping[str, object] | None = None) -> str:
        """Write `dataset.json`, which makes the folder a data set; return the data digest (hex).

        Args:
            vectorizer: name of the vectorizer's folder, which lies in the data set already; None if there is none.
            details: choices of `prepare`, for a reader.
        """
        files = [] if vectorizer is None else sorted((self._directory / vectorizer).iterdir())
        self._index["vectorizer"] = vectorizer
        self._index["vectorizer_files"] = {path.name: fingerprint_of(path).as_json() for path in files}
        self._index["details"] = dict(details or {})
        self._index["digest"] = digest_of(self._index)
        with naming(self._directory / INDEX_NAME):
            (self._directory / INDEX_NAME).write_bytes(json_bytes(self._index))
        return self._index["digest"]

    def _write_shard(self, stem: str, first_row: int, rows: Rows) -> Shard:
        arrays = {"row_splits": rows.row_splits, "columns": rows.columns, "labels": rows.labels}
        if rows.values is not None:
            arrays["values"] = rows.values
        if rows.weights is not None:
            arrays["weights"] = rows.weights
        files = {name: self._save(f"{stem}.{name}.npy", name, array) for name, array in arrays.items()}
        return Shard(first_row, rows.num_rows, files)

    def _save(self, name: str, array_name: str, array: np.ndarray) -> ShardFile:
        path = self._directory / name
        save_npy(path, np.ascontiguousarray(array, self._dtypes[array_name]))
        record = fingerprint_of(path, with_crc32=True)
        assert record.crc32 is not None
        return ShardFile(name, record.bytes, record.crc32, record.sha256)


def _cut_into_shards(pieces: Iterable[Rows], rows_per_shard: int) -> Iterator[list[Rows]]:
    """Yield the rows of each shard as a list of pieces; how `pieces` were cut does not change the shards."""
    shard: list[Rows] = []
    num_rows = num_bytes = 0
    for piece in pieces:
        while piece.num_rows:
            width = 8 if piece.values is not None else 4
            row_bytes = piece.row_splits * width
            if piece.labels.ndim > 1:
                row_bytes = row_bytes + np.arange(len(row_bytes)) * piece.labels.shape[1]
            num_fitting = int(np.searchsorted(row_bytes, SHARD_BYTES - num_bytes, side="right")) - 1
            num_fitting = max(0 if shard else 1, num_fitting)  # a single row may be larger than SHARD_BYTES
            count = min(rows_per_shard - num_rows, num_fitting, piece.num_rows)
            if count:
                shard.append(piece.slice(0, count))
                num_rows += count
                num_bytes += int(row_bytes[count])
                piece = piece.slice(count, piece.num_rows)
            if piece.num_rows:
                yield shard
                shard, num_rows, num_bytes = [], 0, 0
    if shard:
        yield shard
