"""CSV and TSV as labelled texts, row by row.

Decides: which dialects are read, where a row ends, which rows are refused. Never: how bytes become text.

    rows = delimited_rows(Path("train.csv"), ColumnLayout(), Tally(), 2**26, tabs=False)
    blocks = delimited_blocks(Path("train.csv"), ColumnLayout(), Tally(), 2**26, tabs=False)     # the same, faster

CSV follows RFC 4180: fields may be quoted, a quote inside is doubled. TSV has no quotes, as IANA registered
the format: a field holds neither tab nor line end. If a column is selected by name, the first row must be a header.
The header is row 1. Blank lines are no rows.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from distrain.errors import DataError
from distrain.text.readers.blocks import LabelledBlock, grouped
from distrain.text.readers.columns import ColumnLayout, LabelledText, NoRowsError, location
from distrain.text.readers.delimited_columns import DelimitedColumns, columns_of
from distrain.text.readers.delimited_kernel import VISIBLE, PlainRows, short_codes, split_rows
from distrain.text.readers.lines import num_newlines, read_chunks, read_lines, split_lines
from distrain.text.readers.tally import Tally
from distrain.text.readers.texts import Texts

_TOO_LONG = "row too long"


def delimited_rows(
    path: Path, layout: ColumnLayout, tally: Tally, max_row_bytes: int, *, tabs: bool
) -> Iterator[LabelledText]:
    """Yield the rows of a CSV file, or of a TSV file if `tabs`; see `sources.read_rows`."""
    lines = read_lines(path, tally, max_bytes=max_row_bytes)
    return _parsed(path, layout, lines, max_row_bytes, tabs)


def delimited_blocks(
    path: Path, layout: ColumnLayout, tally: Tally, max_row_bytes: int, *, tabs: bool
) -> Iterator[LabelledBlock]:
    """Yield the rows of `delimited_rows` in blocks; see `sources.read_blocks`.

    A compiled kernel cuts plain rows. From the first row that is not plain, the csv module reads all rows.
    """
    chunks = read_chunks(path, tally, max_bytes=max_row_bytes)
    head = next(chunks, b"")
    start, columns = _first_row(path, layout, head, tabs)
    number, line, rest = int(start > 0), num_newlines(head[:start]), head[start:]
    if columns is not None and columns.weight is None and columns.are_texts_adjacent:
        for chunk in chain([b""], chunks, [None]):
            rest += b"\n" if chunk is None else chunk  # the last row of a file may lack a line end
            if len(rest) > max_row_bytes:
                break
            found = _split(rest, columns, tabs)
            if len(found.lines):
                yield _plain_block(rest, found, path, number, line, layout, tabs)
            number += len(found.lines)
            line += found.num_lines
            rest = rest[found.end :]
            if found.is_odd:
                break
        if chunk is None:
            rest = rest[:-1]  # what the kernel left for the csv module, as the file has it
    lines = chain(split_lines(rest), chain.from_iterable(map(split_lines, chunks)))
    yield from grouped(_parsed(path, layout, lines, max_row_bytes, tabs, columns, number, line))


def first_fields(path: Path, max_row_bytes: int, *, tabs: bool) -> list[str] | None:
    """Return the fields of a file's first row, or None if no row can be read."""
    lines = read_lines(path, Tally(), max_bytes=max_row_bytes)
    with suppress(csv.Error):
        return next(filter(None, _reader(_Feed(lines, max_row_bytes), tabs)), None)
    return None


def text_columns(path: Path, layout: ColumnLayout, fields: list[str], *, tabs: bool) -> list[str]:
    """Return the name of each text column, empty if the columns have no names; `fields` is the first row."""
    return [fields[at].strip() if layout.has_names else "" for at in columns_of(path, layout, fields, tabs).texts]


def _first_row(path: Path, layout: ColumnLayout, head: bytes, tabs: bool) -> tuple[int, DelimitedColumns | None]:
    """Return the index of the first row in a file's first chunk, and the columns.

    The columns are None if the csv module cannot read the first row from the chunk alone.
    """
    reader = _reader(split_lines(head), tabs)
    try:
        fields = next(filter(None, reader), None)
    except csv.Error:
        fields = None
    if fields is None:
        return 0, None
    start = 0
    if layout.has_names:
        for _ in range(reader.line_num):
            start = head.find(b"\n", start) + 1 or len(head)
    return start, columns_of(path, layout, fields, tabs)


def _split(raw: bytes, columns: DelimitedColumns, tabs: bool) -> PlainRows:
    separator = ord("\t" if tabs else ",")
    first, last = columns.texts[0], columns.texts[-1]
    octets = np.frombuffer(raw, np.uint8)
    shape = (columns.width, columns.label, first, last)
    return PlainRows(*split_rows(octets, num_newlines(raw), separator, not tabs, *shape))


def _labels(raw: bytes, fields: np.ndarray, tabs: bool) -> tuple[list[str], np.ndarray]:
    """Return the distinct labels in `fields` `[n, 2]` in order of appearance, and the index of each row's label."""
    codes = short_codes(np.frombuffer(raw, np.uint8), fields)
    if codes.all():
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        order = np.argsort(first)
        written = [raw[start:end] for start, end in fields[first[order]].tolist()]
        field_of = np.argsort(order)[inverse]
    else:
        every = [raw[start:end] for start, end in fields.tolist()]
        written = list(dict.fromkeys(every))
        number = {field: index for index, field in enumerate(written)}
        field_of = np.array([number[field] for field in every])
    # Fields that differ in quotes or white space are one label.
    meant = [(field.decode() if tabs else _unquoted(field.decode())).strip() for field in written]
    labels = list(dict.fromkeys(meant))
    numbers = {label: index for index, label in enumerate(labels)}
    return labels, np.array([numbers[label] for label in meant])[field_of]


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if field.startswith('"') else field


def _plain_block(
    raw: bytes, found: PlainRows, path: Path, number: int, line: int, layout: ColumnLayout, tabs: bool
) -> LabelledBlock:
    num_rows = len(found.lines)
    # An escaped newline belongs to no word. Two spaces replace it, so that all offsets stay valid.
    texts = Texts(raw.replace(b"\\n", b"  ") if layout.escaped_newlines else raw, *found.texts.T)
    empty = []
    for row in np.flatnonzero((found.holds & VISIBLE) == 0).tolist():
        text = texts.select(slice(row, row + 1)).to_list()[0].replace('"', "").replace(",", "")
        if not text or text.isspace():
            empty.append(row)
    return LabelledBlock(
        texts,
        *_labels(raw, found.labels, tabs),
        [path] * num_rows,
        np.arange(number + 1, number + 1 + num_rows),
        line + 1 + found.lines,
        np.array(empty, np.int64),
    )


def _reader(lines: Iterable[str], tabs: bool) -> Any:
    if tabs:
        return csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    return csv.reader(lines, strict=True)


def _parsed(
    path: Path,
    layout: ColumnLayout,
    lines: Iterator[str],
    max_row_bytes: int,
    tabs: bool,
    columns: DelimitedColumns | None = None,
    number: int = 0,
    line: int = 0,
) -> Iterator[LabelledText]:
    """Yield the rows in `lines`; `number` rows and `line` lines of the file precede them."""
    # Real reviews exceed the csv module's default limit of 131,072 characters a field. The limit is process-wide,
    # so this function only raises the limit; `_Feed` bounds rows instead.
    csv.field_size_limit(max(csv.field_size_limit(), max_row_bytes))
    feed = _Feed(lines, max_row_bytes)
    reader = _reader(feed, tabs)
    before = line
    while True:
        line = before + reader.line_num + 1
        feed.row_characters = 0
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise _broken(location(path, number + 1, line), str(error), feed.ended, max_row_bytes) from None
        if fields is None:
            break
        if not fields:
            continue
        number += 1
        if columns is None:
            columns = columns_of(path, layout, fields, tabs)
            if layout.has_names:
                continue
        if len(fields) != columns.width:
            count = f"{len(fields)} column{'s' * (len(fields) != 1)}, but the first row has {columns.width}"
            cure = "Replace tabs inside fields." if tabs else "Quote fields that hold commas or line ends."
            raise DataError(f"{location(path, number, line)} has {count}. {cure}")
        text = " ".join([fields[column] for column in columns.texts])
        if layout.escaped_newlines:
            text = text.replace("\\n", "\n")
        weight = None if columns.weight is None else fields[columns.weight]
        yield LabelledText(fields[columns.label].strip(), text, path, number, line, weight)
    if number == 1 and layout.has_names:
        raise NoRowsError(f"{path} has a header but no rows. Each row needs a label and a text.")


class _Feed:
    """Feeds lines to the csv parser, which takes more lines while a quote is open, and bounds the size of a row."""

    def __init__(self, lines: Iterator[str], max_characters: int) -> None:
        self._lines = lines
        self._max_characters = max_characters
        self.row_characters = 0  # characters fed since the row began; `_parsed` resets the count for each row
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.row_characters += len(line)
            if self.row_characters > self._max_characters:
                raise csv.Error(_TOO_LONG)
            yield line
        self.ended = True


def _broken(where: str, error: str, ended: bool, max_row_bytes: int) -> DataError:
    """Return the error for a row that the csv parser refuses."""
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
