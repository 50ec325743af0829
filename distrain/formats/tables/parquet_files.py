"""Parquet files as a source: each row group is read once for a shuffle window.

Decides: how much of a file is held, and how large a row group may be. Never: which columns are features.

    source = parquet("table/*.parquet", features=["age", "income"], label="y")

A few bytes of Parquet can stand for any number of rows, so the declared sizes are checked before anything is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distrain.errors import DataError
from distrain.extras import require_extra
from distrain.formats.columns import Names, check_counts
from distrain.formats.file_list import Paths, listed
from distrain.formats.file_source import FileSource, readable
from distrain.formats.tables.arrow_columns import arrow_columns, flat_fields, is_text_or_bytes
from distrain.formats.tables.arrow_groups import ArrowGroups
from distrain.remote.path import is_url

MAX_GROUP_BYTES = 2**30  # of the chosen columns of a row group, unpacked

_SUFFIXES = (".parquet", ".pq")
_KIND = "Parquet"


def parquet(
    paths: Paths, *, features: Names | None = None, label: Names | None = None, weight: str | None = None
) -> FileSource:
    """Use Parquet files as a source of examples.

    Numbers, booleans and decimals become numbers, and lists of equal length arrays. Texts and bytes, such as encoded
    images, reach `map=` as objects. A field of a struct is a column of its own, such as "image.bytes".

    Args:
        paths: a file, a folder, a pattern, or a list of these; read one after the other, in the order of their names.
            URLs such as "s3://bucket/table/*.parquet" are read by range.
        features: columns of the features: a name, a list of names for one vector, or a dict of inputs.
            Default: all columns but label and weight.
        label: columns of the label. Default: the column "label", "labels" or "y".
        weight: column of the weight. Default: the column "weight", "weights" or "sample_weight".

    Raises:
        DataError: a file is missing or damaged, or a column holds other things than numbers.
        ConfigurationError: a column does not exist, or pyarrow is not installed.
    """
    files = listed(paths, suffixes=_SUFFIXES, kind="Parquet files")
    require_extra("pyarrow", extra="parquet", what=f"Reading {files[0]}")
    return FileSource(ParquetRows, files, features=features, label=label, weight=weight)


class ParquetRows:
    """One open Parquet file."""

    holds_group = True

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet

        self._path = path
        with readable(path, _KIND):
            source = path.open("rb") if is_url(path) else path
            metadata = pyarrow.parquet.read_metadata(source)
            schema = metadata.schema.to_arrow_schema()
            texts = [".".join(fields) for fields, kind in flat_fields(schema) if is_text_or_bytes(kind)]
            # Texts stay dictionary-encoded in memory: a short page can hold one long text any number of times.
            self._file = pyarrow.parquet.ParquetFile(
                source,
                metadata=metadata,
                read_dictionary=texts,
                pre_buffer=False,
                buffer_size=2**20,
                page_checksum_verification=True,
            )
            counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        check_counts(path, counts, path.stat().st_size)
        self._groups = ArrowGroups(path, schema, counts, self._load)
        self.columns = arrow_columns(schema, sum(counts), max(counts, default=1))

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, np.ndarray]:
        """Return the rows start .. stop - 1 of some columns."""
        return self._groups.read(names, start, stop)

    def close(self) -> None:
        """Close the file."""
        self._groups.release()
        self._file.close()

    def _load(self, group: int, names: Sequence[str]) -> Any:
        self._check_size(group, names)
        with readable(self._path, _KIND):
            return self._file.read_row_group(group, columns=list(names), use_threads=False)

    def _check_size(self, group: int, names: Sequence[str]) -> None:
        with readable(self._path, _KIND):
            metadata = self._file.metadata.row_group(group)
            chunks = [metadata.column(index) for index in range(metadata.num_columns)]
            own = [chunk for chunk in chunks if _is_part(chunk.path_in_schema, names)]
            sizes = [
                max(chunk.total_uncompressed_size, max(chunk.num_values, metadata.num_rows) * _width(chunk))
                for chunk in own
            ]
        if sum(sizes) > MAX_GROUP_BYTES:
            raise DataError(
                f"{self._path} has a row group of {metadata.num_rows:,} rows, which takes "
                f"{sum(sizes) / 2**20:,.0f} MiB unpacked; at most {MAX_GROUP_BYTES / 2**20:,.0f} MiB are read at once. "
                "Write it with smaller row groups, such as pyarrow.parquet.write_table(..., row_group_size=65536)."
            )


def _is_part(path: str, names: Sequence[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in names)


def _width(chunk: Any) -> int:
    """Bytes of a value in memory; of texts and bytes the index into their dictionary."""
    return {"BOOLEAN": 1, "INT64": 8, "DOUBLE": 8, "INT96": 12}.get(chunk.physical_type, 4)
