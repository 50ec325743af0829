"""JSON Lines and Parquet as labelled texts, row by row.

Decides: which keys and values make a row. Never: how bytes become text (`lines.py`).

    rows = json_rows(Path("train.jsonl"), Layout(texts=("title", "body")), Tally(), 2**26)

By default the key "label" holds the label, and the key "text" the text. Null becomes an empty text. A whole number
is written without a decimal point.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distrain.errors import ConfigurationError, DataError
from distrain.text.readers.columns import LabelledText, Layout, location, no_column, shown_names
from distrain.text.readers.lines import Tally, read_lines

_BATCH_BYTES = 4 * 2**20
_BATCH_ROWS = 4096


def json_rows(path: Path, layout: Layout, tally: Tally, max_row_bytes: int) -> Iterator[LabelledText]:
    """Yield the rows of a JSON Lines file, numbered by line; see `sources.read_rows`."""
    label_key, text_keys = layout.label or "label", layout.texts or ("text",)
    for number, line in enumerate(read_lines(path, tally, max_bytes=max_row_bytes), start=1):
        if line.isspace():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{location(path, number)} is not JSON ({error}). JSON Lines holds one object a line."
            ) from None
        if not isinstance(record, dict):
            raise DataError(
                f"{location(path, number)} is a JSON {type(record).__name__}, not an object. "
                "JSON Lines holds one object a line."
            )
        for key in (label_key, *text_keys):
            if key not in record:
                raise DataError(
                    f"{location(path, number)} has no key {key!r}: it has {shown_names([*record]) or 'none'}. "
                    "--label-column and --text-columns name the keys."
                )
        yield _labelled_text(record, label_key, text_keys, path, number)


def parquet_rows(path: Path, layout: Layout, tally: Tally, max_row_bytes: int) -> Iterator[LabelledText]:
    """Yield the rows of a Parquet file, read in batches; see `sources.read_rows`."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigurationError(
            f"Reading {path} needs pyarrow, which is not installed. Install it with: pip install 'distrain[parquet]'"
        ) from None
    label_name, text_names = layout.label or "label", layout.texts or ("text",)
    wanted = list(dict.fromkeys((label_name, *text_names)))
    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
            names = file.schema_arrow.names
            for name in wanted:
                if name not in names:
                    raise no_column(path, name, f"its columns are {shown_names(names)}")
            row, size = 0, path.stat().st_size
            for batch in file.iter_batches(_batch_rows(file.metadata), columns=wanted, use_threads=False):
                columns = {name: _column_values(batch.column(name)) for name in wanted}
                tally.num_bytes += size * batch.num_rows // file.metadata.num_rows
                for index in range(batch.num_rows):
                    row += 1
                    record = {name: columns[name][index] for name in wanted}
                    for name, value in record.items():
                        if isinstance(value, bytes):
                            record[name] = tally.clean(value, path, row)
                    text = _labelled_text(record, label_name, text_names, path, row)
                    if len(text.text) > max_row_bytes:
                        raise DataError(
                            f"{text.location} has a text over {max_row_bytes / 2**20:,.0f} MiB. "
                            "A larger --memory-mib allows longer texts."
                        )
                    yield text
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error}). Copy or write it again.") from None


def _batch_rows(metadata: Any) -> int:
    """Return a number of rows that takes about 4 MiB, according to the file's metadata."""
    num_bytes = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * metadata.num_rows // max(1, num_bytes)))


def _column_values(column: Any) -> list[object]:
    """Return a Parquet column as Python values; texts are bytes, because nothing has checked their encoding."""
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pyarrow.types.is_large_string(column.type):
        column = column.cast(pyarrow.large_binary())
    elif pyarrow.types.is_string(column.type):
        column = column.cast(pyarrow.binary())
    return column.to_pylist()


def _labelled_text(
    record: Mapping[str, object], label_key: str, text_keys: Sequence[str], path: Path, row: int
) -> LabelledText:
    def plain(key: str) -> str:
        value = record[key]
        if isinstance(value, str):
            return value
        if value is None or value != value:  # NaN marks a missing value in tables
            return ""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
            return str(int(value))
        if isinstance(value, float):
            return repr(value)
        kind = type(value).__name__
        raise DataError(f"{location(path, row)}: {key!r} holds a {kind}. Labels and texts are text or numbers.")

    return LabelledText(plain(label_key).strip(), " ".join([plain(key) for key in text_keys]), path, row, 0)
