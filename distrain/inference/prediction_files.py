"""Predictions as a file of rows: JSON Lines or Parquet.

Decides: how rows become lines or row groups. Never: computes a prediction.

    with prediction_writer(Path("predictions.parquet")) as write:
        write({"example": numbers, "prediction": outputs})        # arrays with a row for each example

A file appears whole or not at all. Memory holds one row group. JSON has no NaN and no infinity, so these become null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from distrain.errors import ConfigurationError
from distrain.extras import require_extra
from distrain.files import atomic_write

ENDINGS = (".parquet", ".jsonl")
GROUP_ROWS = 2**16  # of a Parquet row group
GROUP_BYTES = 2**25

Write = Callable[[Mapping[str, np.ndarray]], None]


def check_prediction_file(path: Path) -> None:
    """Refuse a file that cannot be written, before anything is computed.

    Raises:
        ConfigurationError: the ending is unknown, the folder is missing, or pyarrow is not installed.
    """
    if path.suffix not in ENDINGS:
        raise ConfigurationError(f"--out is '{path}', but its ending must be {' or '.join(ENDINGS)}.")
    if path.is_dir() or not path.parent.is_dir():
        fault = "is a folder" if path.is_dir() else f"lies in {path.parent}, which is no folder"
        raise ConfigurationError(f"--out is '{path}', but that {fault}. Name a file in a folder that is there.")
    if path.suffix == ".parquet":
        require_extra("pyarrow.parquet", package="pyarrow", extra="parquet", what="A Parquet file, unlike .jsonl,")


@contextmanager
def prediction_writer(path: Path) -> Iterator[Write]:
    """Yield a function that appends rows to a file, which appears when the block ends."""
    writer = _parquet_writer if path.suffix == ".parquet" else _json_writer
    with atomic_write(path) as tmp_path, writer(tmp_path) as write:
        yield write


def json_lines(columns: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Yield a JSON object for each row."""
    values = [_json_values(column) for column in columns.values()]
    for row in zip(*values, strict=True):
        yield json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False, allow_nan=False)


def _json_values(column: np.ndarray) -> list[Any]:
    if column.dtype.kind == "O":  # of texts, lists of texts, and numbers
        return [None if isinstance(value, float) and not math.isfinite(value) else value for value in column.tolist()]
    if column.dtype.kind == "f" and not np.isfinite(column).all():
        values = column.astype(object)
        values[~np.isfinite(column)] = None
        return values.tolist()
    return column.tolist()


@contextmanager
def _json_writer(path: Path) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as file:
        yield lambda columns: file.writelines(f"{line}\n" for line in json_lines(columns))


@contextmanager
def _parquet_writer(path: Path) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    waiting: list[Any] = []
    writer: Any = None

    def flush() -> None:
        nonlocal writer
        if waiting:
            table = pa.Table.from_batches(waiting)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table, row_group_size=GROUP_ROWS)
            waiting.clear()

    def write(columns: Mapping[str, np.ndarray]) -> None:
        waiting.append(pa.RecordBatch.from_pydict({name: _arrow(name, column) for name, column in columns.items()}))
        if sum(batch.num_rows for batch in waiting) >= GROUP_ROWS or sum(b.nbytes for b in waiting) >= GROUP_BYTES:
            flush()

    try:
        yield write
        flush()
    finally:
        if writer is not None:
            writer.close()


def _arrow(name: str, column: np.ndarray) -> Any:
    """Return rows of numbers, of lists of numbers, or of objects that the name tells, as an Arrow array."""
    import pyarrow as pa

    if column.dtype.kind == "O":
        objects = {"label": pa.string(), "labels": pa.list_(pa.string()), "probabilities": pa.list_(pa.float64())}
        return pa.array(column.tolist(), objects.get(name, pa.float64()))
    if column.ndim == 1:
        return pa.array(column)
    values = pa.array(np.ascontiguousarray(column).reshape(-1))
    for axis in range(column.ndim - 1, 0, -1):
        count = math.prod(column.shape[:axis])
        offsets = pa.array(np.arange(count + 1, dtype=np.int64) * column.shape[axis], pa.int64())
        values = pa.LargeListArray.from_arrays(offsets, values)
    return values
