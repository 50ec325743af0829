"""CSV and TSV as labelled texts, row by row.

Decides: which dialects are read, where a row ends, which rows are refused. Never: how bytes become text
(`lines.py` does).

    rows = delimited_rows(Path("train.csv"), Layout(), Tally(), 2**26, tabs=False)
    blocks = delimited_blocks(Path("train.csv"), Layout(), Tally(), 2**26, tabs=False)     # the same, faster

CSV follows RFC 4180: fields may be quoted, a quote inside is doubled. TSV has no quotes, as IANA registered
it: a field holds neither tab nor line end. A header is row 1; it is expected when a column is asked for by
name. Blank lines are no rows.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distrain.errors import ConfigurationError, DataError
from distrain.text.readers.blocks import LabelledBlock, grouped
from distrain.text.readers.columns import LabelledText, Layout, no_column, place, shown_names
from distrain.text.readers.delimited_kernel import VISIBLE, PlainRows, short_codes, split_rows
from distrain.text.readers.lines import Tally, num_newlines, read_lines, read_pieces, split_lines
from distrain.text.readers.texts import Texts

_TOO_LONG = "row too long"


class _Columns(NamedTuple):
    """What the first row says of all.

    Attributes:
        width: fields of a row.
        label: the label's field.
        texts: the texts' fields, in the order asked for.
    """

    width: int
    label: int
    texts: list[int]


def delimited_rows(
    path: Path, layout: Layout, tally: Tally, max_row_bytes: int, *, tabs: bool
) -> Iterator[LabelledText]:
    """The rows of a CSV file, or of a TSV file with `tabs`; see `sources.read_rows`."""
    lines = read_lines(path, tally, max_bytes=max_row_bytes)
    return _parsed(path, layout, lines, max_row_bytes, tabs)


def delimited_blocks(
    path: Path, layout: Layout, tally: Tally, max_row_bytes: int, *, tabs: bool
) -> Iterator[LabelledBlock]:
    """The same rows in blocks; see `sources.read_blocks`.

    A compiled kernel cuts plain rows; from the first row on that is not plain, the csv module reads.
    """
    pieces = read_pieces(path, tally, max_bytes=max_row_bytes)
    head = next(pieces, b"")
    start, columns = _first_row(path, layout, head, tabs)
    number, line, rest = int(start > 0), num_newlines(head[:start]), head[start:]
    is_plain = columns is not None and columns.texts == [*range(columns.texts[0], columns.texts[-1] + 1)]
    if columns is not None and is_plain:
        # At the file's end a row may do without a line end.
        for piece in chain([b""], pieces, [b"\n"]):
            rest += piece
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
    lines = chain(split_lines(rest), chain.from_iterable(map(split_lines, pieces)))
    yield from grouped(_parsed(path, layout, lines, max_row_bytes, tabs, columns, number, line))


def _first_row(path: Path, layout: Layout, head: bytes, tabs: bool) -> tuple[int, _Columns | None]:
    """Where the rows begin in the first piece of a file, and its columns; None: the csv module is to find them."""
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
    return start, _columns(path, layout, fields, tabs)


def _columns(path: Path, layout: Layout, fields: list[str], tabs: bool) -> _Columns:
    names = [name.strip() for name in fields] if layout.has_names else None
    return _Columns(len(fields), *_positions(path, layout, names, len(fields), tabs))


def _split(raw: bytes, columns: _Columns, tabs: bool) -> PlainRows:
    separator = ord("\t" if tabs else ",")
    first, last = columns.texts[0], columns.texts[-1]
    octets = np.frombuffer(raw, np.uint8)
    shape = (columns.width, columns.label, first, last)
    return PlainRows(*split_rows(octets, num_newlines(raw), separator, not tabs, *shape))


def _labels(raw: bytes, fields: np.ndarray, tabs: bool) -> tuple[list[str], np.ndarray]:
    """The different labels in `fields` `[n, 2]` in order of appearance, and which of them each row has."""
    codes = short_codes(np.frombuffer(raw, np.uint8), fields)
    if codes.all():
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        order = np.argsort(first)
        written = [raw[start:end] for start, end in fields[first[order]].tolist()]
        field_of = np.argsort(order)[inverse]
    else:
        every = [raw[start:end] for start, end in fields.tolist()]
        written = list(dict.fromkeys(every))
        number = {field: place for place, field in enumerate(written)}
        field_of = np.array([number[field] for field in every])
    # Fields that differ in quotes or white space are one label.
    meant = [(field.decode() if tabs else _unquoted(field.decode())).strip() for field in written]
    labels = list(dict.fromkeys(meant))
    numbers = {label: place for place, label in enumerate(labels)}
    return labels, np.array([numbers[label] for label in meant])[field_of]


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if field.startswith('"') else field


def _plain_block(
    raw: bytes, found: PlainRows, path: Path, number: int, line: int, layout: Layout, tabs: bool
) -> LabelledBlock:
    num_rows = len(found.lines)
    # The two characters are no part of a word, and what replaces them is as long.
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
    layout: Layout,
    lines: Iterator[str],
    max_row_bytes: int,
    tabs: bool,
    columns: _Columns | None = None,
    number: int = 0,
    line: int = 0,
) -> Iterator[LabelledText]:
    """The rows in `lines`, which stand behind `number` rows and `line` lines."""
    # The module's own limit, 131,072 characters a field, is less than real reviews have. It is process-wide,
    # so it is only ever raised; `_Feed` bounds rows instead.
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
            raise _broken(place(path, number + 1, line), str(error), feed.ended, max_row_bytes) from None
        if fields is None:
            break
        if not fields:
            continue
        number += 1
        if columns is None:
            columns = _columns(path, layout, fields, tabs)
            if layout.has_names:
                continue
        if len(fields) != columns.width:
            count = f"{len(fields)} column{'s' * (len(fields) != 1)}, but the first row has {columns.width}"
            cure = "Replace tabs inside fields." if tabs else "Quote fields that hold commas or line ends."
            raise DataError(f"{place(path, number, line)} has {count}. {cure}")
        text = " ".join([fields[column] for column in columns.texts])
        if layout.escaped_newlines:
            text = text.replace("\\n", "\n")
        yield LabelledText(fields[columns.label].strip(), text, path, number, line)
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
