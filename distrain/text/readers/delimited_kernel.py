"""Byte kernel over CSV and TSV: find the rows in a chunk of a file, and the label and the texts in each row.

Decides: which rows are plain enough for the kernel. Never: repairs, refuses or decodes a row. The csv module reads
every row that is not plain.

    rows = PlainRows(*split_rows(raw, len(raw), 44, True, 2, 0, 1, 1))

A plain row has the right number of fields and ends in a line end. In a plain row every quoted field ends before a
separator or a line end, and every carriage return precedes a newline.

`split_rows` has more than 80 lines, because a split would pass all its local state between functions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from distrain.jit import compiled

_NEWLINE, _RETURN, _QUOTE = 10, 13, 34

VISIBLE, HIGH = 1, 2  # flags of a text: it holds ASCII other than white space; it holds bytes beyond ASCII


class PlainRows(NamedTuple):
    """Offsets of rows in a chunk of a file.

    Attributes:
        lines: int64 `[n]`: newlines in the chunk before each row.
        labels: int64 `[n, 2]`: start and end in bytes of the label's field, quotes included.
        texts: int64 `[n, 2]`: start and end in bytes of the text fields together, quotes included.
        holds: uint8 `[n]`: `VISIBLE`, `HIGH`, both or neither.
        end: offset in bytes behind the last of these rows.
        num_lines: newlines before `end`.
        is_odd: True if the row that begins at `end` is not plain, False if the row is incomplete.
    """

    lines: np.ndarray
    labels: np.ndarray
    texts: np.ndarray
    holds: np.ndarray
    end: int
    num_lines: int
    is_odd: bool


@compiled
def _holds(byte: np.uint8) -> int:
    if byte >= 128:
        return HIGH
    return 0 if 9 <= byte <= 13 or 28 <= byte <= 32 else VISIBLE  # the ASCII white space of `str.isspace`


@compiled
def short_codes(raw: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """Return an int64 code for each field `[n, 2]` of up to seven bytes, distinct for distinct bytes; else 0."""
    codes = np.zeros(len(fields), np.int64)
    for row in range(len(fields)):
        if fields[row, 1] - fields[row, 0] <= 7:
            codes[row] = 1
            for at in range(fields[row, 0], fields[row, 1]):
                codes[row] = codes[row] << 8 | raw[at]
    return codes


@compiled
def split_rows(
    raw: np.ndarray,
    most: int,
    separator: int,
    has_quotes: bool,
    width: int,
    label: int,
    first_text: int,
    last_text: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, int, bool]:
    """Find the plain rows from the start of `raw` up to the first row that is not plain or incomplete.

    Args:
        raw: uint8: bytes of a file; the first byte begins a row.
        most: upper bound on the newlines in `raw`.
        separator: byte between fields.
        has_quotes: whether fields may be quoted.
        width: number of fields of a row.
        label: index of the label's field.
        first_text: index of the first text field; text fields are adjacent.
        last_text: index of the last text field.

    Returns:
        The fields of `PlainRows`, as a plain tuple: a signal while numba builds a named tuple ends the process.
    """
    lines = np.empty(most, np.int64)
    labels = np.empty((most, 2), np.int64)
    texts = np.empty((most, 2), np.int64)
    holds = np.empty(most, np.uint8)
    rows, num_lines, is_odd = 0, 0, False
    row_start, stop = 0, len(raw)
    while row_start < stop and not is_odd:
        at, field, held, inner_lines = row_start, 0, 0, 0
        if raw[at] == _NEWLINE or (raw[at] == _RETURN and at + 1 < stop and raw[at + 1] == _NEWLINE):
            row_start = at + (1 if raw[at] == _NEWLINE else 2)  # a blank line is no row
            num_lines += 1
            continue
        while True:
            field_start = at
            is_text = first_text <= field <= last_text
            if has_quotes and at < stop and raw[at] == _QUOTE:
                at += 1
                while at < stop:
                    byte = raw[at]
                    at += 1
                    if byte == _QUOTE:
                        if at == stop or raw[at] != _QUOTE:
                            break
                        at += 1
                    inner_lines += byte == _NEWLINE
                    if is_text and not held & VISIBLE:
                        held |= _holds(byte)
                field_end = at
            else:
                while at < stop and raw[at] != separator and raw[at] != _NEWLINE and raw[at] != _RETURN:
                    if is_text and not held & VISIBLE:
                        held |= _holds(raw[at])
                    at += 1
                field_end = at
            if at == stop:
                break  # the row is incomplete
            if field == label:
                labels[rows, 0], labels[rows, 1] = field_start, field_end
            if field == first_text:
                texts[rows, 0] = field_start
            if field == last_text:
                texts[rows, 1] = field_end
            field += 1
            if raw[at] == separator and field < width:
                at += 1
                continue
            if raw[at] == _RETURN and at + 1 < stop:
                at += 1
            is_odd = raw[at] != _NEWLINE or field != width
            break
        if at == stop or is_odd:
            break
        lines[rows], holds[rows] = num_lines, held
        rows += 1
        num_lines += inner_lines + 1
        row_start = at + 1
    return lines[:rows], labels[:rows], texts[:rows], holds[:rows], row_start, num_lines, is_odd
