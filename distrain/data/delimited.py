"""CSV and TSV as labelled texts, row by row.

Decides: which dialects are read, where a row ends, which rows are refused. Never: how bytes become text
(`lines.py` does).

    rows = delimited_rows(Path("train.csv"), Layout(), Tally(), 2**26, tabs=False)

CSV follows RFC 4180: fields may be quoted, a quote inside is doubled. TSV has no quotes, as IANA registered
it: a field holds neither tab nor line end. A header is row 1; it is expected when a column is asked for by
name. Blank lines are no rows.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from distrain.data.layout import LabelledText, Layout, no_column, place, shown_names
from distrain.data.lines import Tally, read_lines
from distrain.errors import ConfigurationError, DataError

_TOO_LONG = "row too long"


def delimited_rows(
    path: Path, layout: Layout, tally: Tally, max_row_bytes: int, *, tabs: bool
) -> Iterator[LabelledText]:
    """The rows of a CSV file, or of a TSV file with `tabs`; see `sources.read_rows`."""
    # The module's own limit, 131,072 characters a field, is less than real reviews have. It is process-wide,
    # so it is only ever raised; `_Feed` bounds rows instead.
    csv.field_size_limit(max(csv.field_size_limit(), max_row_bytes))
    feed = _Feed(read_lines(path, tally, max_bytes=max_row_bytes), max_row_bytes)
    if tabs:
        reader = csv.reader(feed, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    else:
        reader = csv.reader(feed, strict=True)
    number = width = 0
    while True:
        line = reader.line_num + 1
        feed.row_characters = 0
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise _broken(place(path, number + 1, line), str(error), feed.ended, max_row_bytes) from None
        if fields is None:
            break
        if not fields:
            continue
        number += 1
        if number == 1:
            width = len(fields)
            names = [name.strip() for name in fields] if layout.has_names else None
            label_column, text_columns = _positions(path, layout, names, width, tabs)
            if names is not None:
                continue
        if len(fields) != width:
            columns = f"{len(fields)} column{'s' * (len(fields) != 1)}, but the first row has {width}"
            cure = "Replace tabs inside fields." if tabs else "Quote fields that hold commas or line ends."
            raise DataError(f"{place(path, number, line)} has {columns}. {cure}")
        text = " ".join([fields[column] for column in text_columns])
        if layout.escaped_newlines:
            text = text.replace("\\n", "\n")
        yield LabelledText(fields[label_column].strip(), text, path, number, line)
    if number == 1 and layout.has_names:
        raise DataError(f"{path} has a header but no rows. Each row needs a label and a text.")


class _Feed:
    """Lines on their way into the csv parser, which asks for more of them while a quote is open."""

    def __init__(self, lines: Iterator[str], max_characters: int) -> None:
        self._lines = lines
        self._max_characters = max_characters
        self.row_characters = 0  # handed over since the row began; who reads rows sets it back
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.row_characters += len(line)
            if self.row_characters > self._max_characters:
                raise csv.Error(_TOO_LONG)
            yield line
        self.ended = True


def _broken(where: str, error: str, ended: bool, max_row_bytes: int) -> DataError:
    """What the csv parser stumbled over, for people."""
    cure = "Close the quote; a quote inside a quoted field is doubled."
    if ended:
        return DataError(f"{where}: a quote that opens in this row is never closed. {cure}")
    if error == _TOO_LONG:
        return DataError(
            f"{where} is longer than {max_row_bytes / 2**20:,.0f} MiB: a quote in it may be open. "
            f"{cure} A larger --memory-mib allows longer rows."
        )
    if "new-line" in error:
        return DataError(
            f"{where} has a carriage return inside a field without quotes. Save the file with \\n line ends."
        )
    return DataError(f"{where}: text follows a closing quote, so that a quote is missing or not doubled. {cure}")


def _positions(path: Path, layout: Layout, names: list[str] | None, width: int, tabs: bool) -> tuple[int, list[int]]:
    """Columns of the label and of the texts, from 0, in a file of `width` columns; `names` is its header."""
    if width < 2:
        separator = "tabs" if tabs else "commas (end the file's name with .tsv for tabs)"
        raise DataError(f"{path}, row 1 has only one column. A label and a text are needed, separated by {separator}.")

    def position(name: str) -> int:
        if names is not None and name in names:
            if names.count(name) > 1:
                raise ConfigurationError(f"{path} has {names.count(name)} columns named {name!r}. Rename all but one.")
            return names.index(name)
        if name.isdecimal() and int(name) < width:
            return int(name)
        have = (
            f"its columns are {shown_names(names)}"
            if names
            else f"it has {width} columns, counted from 0, and no header is read"
        )
        raise no_column(path, name, have)

    default = "label" if names is not None and "label" in names else "0"
    label = position(default if layout.label is None else layout.label)
    if layout.texts is None:
        return label, [column for column in range(width) if column != label]
    texts = [position(name) for name in layout.texts]
    if label in texts:
        raise ConfigurationError(
            f"{path}: column {label} would be label and text. Name the label's column with --label-column."
        )
    return label, texts
