"""Records of named values as labelled texts, and JSON Lines as records.

Decides: which keys and values make a row. Never: how bytes become text (`lines.py`).

    rows = json_rows(Path("train.jsonl"), ColumnLayout(texts=("title", "body")), Tally(), 2**26)

By default the key "label" holds the label, and the key "text" the text. Null and NaN become an empty text. A whole
number is written without a decimal point.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path
from typing import Any

from distrain.errors import DataError
from distrain.files import unique_names
from distrain.text.readers.columns import ColumnLayout, LabelledText, location, shown_names
from distrain.text.readers.label_lists import joined_labels
from distrain.text.readers.lines import read_lines
from distrain.text.readers.memory_bound import memory_bound
from distrain.text.readers.tally import Tally

MEMORY_ROWS = 8  # a reader may hold as much memory as this number of the longest rows
MAX_EXACT = 2**53  # whole numbers from here on share one floating number with their neighbours
_SMALL_LINE = 2**20  # bytes; the values of a line take 30 times as much memory at most


def json_rows(path: Path, layout: ColumnLayout, tally: Tally, max_row_bytes: int) -> Iterator[LabelledText]:
    """Yield the rows of a JSON Lines file, numbered by line; see `sources.read_rows`."""
    keys = layout.keys
    for number, line in enumerate(read_lines(path, tally, max_bytes=max_row_bytes), start=1):
        if line.isspace():
            continue
        try:
            with memory_bound(MEMORY_ROWS * max_row_bytes) if len(line) > _SMALL_LINE else nullcontext():
                record = json.loads(line, object_pairs_hook=unique_names)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{location(path, number)} is not JSON ({error}). JSON Lines holds one object a line."
            ) from None
        except MemoryError:
            raise DataError(
                f"{location(path, number)} takes over {MEMORY_ROWS * max_row_bytes / 2**20:,.0f} MiB of memory. "
                "A larger --memory-mib allows it."
            ) from None
        if not isinstance(record, dict):
            raise DataError(
                f"{location(path, number)} is a JSON {type(record).__name__}, not an object. "
                "JSON Lines holds one object a line."
            )
        for key in keys:
            if key not in record:
                raise DataError(
                    f"{location(path, number)} has no key {key!r}: it has {shown_names([*record]) or 'none'}. "
                    "--label-column, --text-columns and --weight-column name the keys."
                )
        values = {key: _clean(record[key], tally, path, number) for key in keys}
        yield labelled_text(values, layout, path, number)


def _clean(value: Any, tally: Tally, path: Path, row: int) -> Any:
    """Return a value without NUL, for which JSON has an escape."""
    if isinstance(value, list):
        return [_clean(one, tally, path, row) if isinstance(one, str) else one for one in value]
    if isinstance(value, str) and "\0" in value:
        return tally.clean(value.encode(errors="surrogatepass"), path, row)
    return value


def labelled_text(record: Mapping[str, Any], layout: ColumnLayout, path: Path, row: int) -> LabelledText:
    """Return one row.

    Args:
        record: strings, numbers, booleans or None by key; the label may be a list of these.
        layout: keys of label, texts and weight.
        path: the file.
        row: number of the row from 1.

    Raises:
        DataError: a value is no text or number, or the label is a number that others may share.
    """
    label_key = layout.label_key
    label = record[label_key]
    for number in label if isinstance(label, list) else [label]:
        _check_number(number, label_key, layout, path, row)

    def plain(value: Any, key: str) -> str:
        if isinstance(value, str):
            return value
        if value is None or value != value:  # NaN marks a missing value in tables
            return ""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int):
            return str(value)
        if not isinstance(value, float | Decimal):
            kind = type(value).__name__
            raise DataError(f"{location(path, row)}: {key!r} holds a {kind}. Labels and texts are text or numbers.")
        if -MAX_EXACT < value < MAX_EXACT and value == int(value):
            return str(int(value))
        return repr(value) if isinstance(value, float) else f"{value:f}"

    if isinstance(label, list):
        labels = [plain(one, label_key) for one in label]
        try:
            written = joined_labels(labels)
        except DataError as error:
            raise DataError(f"{location(path, row)}: {error}") from None
    else:
        written = plain(label, label_key).strip()
    text = " ".join([plain(record[key], key) for key in layout.text_keys])
    weight = None if layout.weight is None else plain(record[layout.weight], layout.weight)
    return LabelledText(written, text, path, row, 0, weight)


def _check_number(number: Any, label_key: str, layout: ColumnLayout, path: Path, row: int) -> None:
    """Raise DataError if a label is a number that others may share."""
    if layout.has_numbers or not isinstance(number, float):
        return
    if math.isinf(number) or abs(number) >= MAX_EXACT:
        raise DataError(
            f"{location(path, row)}: {label_key!r} holds the number {number}. A label must be below 2^53, unless it is "
            "written without a decimal point or as text."
        )
