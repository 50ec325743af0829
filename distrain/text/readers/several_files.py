"""Rows of several files, one file after the other.

Decides: whether files have the same columns, and what an empty file among several means. Never: how one file is read
(`sources.py`), or which files are read (`input_files.py`).

    check_columns(files, layout, tally, max_row_bytes=2**26)
    for block in read_all_blocks(files, layout, tally, max_row_bytes=2**26):
        block.location(0)                                    # "shards/part-1.csv, row 1"

Each file begins with its own header, if columns have names. A block never crosses files. One of several files may be
empty, as Spark writes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from distrain.errors import DataError
from distrain.text.readers.blocks import LabelledBlock
from distrain.text.readers.columns import ColumnLayout, NoRowsError, shown_names
from distrain.text.readers.delimited import first_fields, text_columns
from distrain.text.readers.sources import read_blocks, reader_of
from distrain.text.readers.tally import Tally

_SHOWN = 5  # names of empty files in a message


class _Columns(NamedTuple):
    """Columns of one file.

    Attributes:
        path: the file.
        width: number of columns, if columns have numbers only; else 0.
        texts: name of each text column, empty where the file names none.
        first_row: fields of the first row, if columns have numbers only; else empty.
    """

    path: Path
    width: int
    texts: list[str]
    first_row: list[str]


def read_all_blocks(
    paths: Sequence[Path], layout: ColumnLayout, tally: Tally, *, max_row_bytes: int, exact: bool = False
) -> Iterator[LabelledBlock]:
    """Yield the rows of all files in blocks; see `sources.read_blocks`.

    Raises:
        DataError: as `read_blocks`; of several files only one must hold a row.
    """
    tally.names_files = len(paths) > 1
    empty: list[Path] = []
    for path in paths:
        try:
            yield from read_blocks(path, layout, tally, max_row_bytes=max_row_bytes, exact=exact)
        except NoRowsError:
            empty.append(path)
            if len(empty) == len(paths):
                raise
    if empty:
        shown = ", ".join(map(str, empty[:_SHOWN])) + (", ..." if len(empty) > _SHOWN else "")
        tally.notes.append(f"{len(empty):,} of {len(paths):,} files hold no rows: {shown}.")


def check_columns(paths: Sequence[Path], layout: ColumnLayout, tally: Tally, *, max_row_bytes: int) -> None:
    """Compare the columns of several files by their first rows.

    Args:
        paths: the files.
        layout: columns to read.
        tally: receives a note if all files begin with the same row, which is probably a header.
        max_row_bytes: longest row allowed, in bytes.

    Raises:
        DataError: two files have different columns.
        ConfigurationError: a column of the layout does not exist.
    """
    if len(paths) < 2:
        return
    checked: list[_Columns] = []
    for path in paths:
        columns = _columns(path, layout, max_row_bytes)
        if columns is None:
            continue
        if checked and (difference := _difference(checked[0], columns)):
            raise DataError(
                f"{path} {difference}. Files that are read together need the same columns: name them with "
                "--label-column and --text-columns, or give files of one kind."
            )
        checked.append(columns)
    first_rows = {tuple(columns.first_row) for columns in checked}
    if len(checked) > 1 and len(first_rows) == 1 and first_rows != {()}:
        tally.notes.append(
            f"Each of {len(checked):,} files begins with the row {shown_names(checked[0].first_row)}. If this row is "
            "a header, name the columns with --label-column and --text-columns."
        )


def _columns(path: Path, layout: ColumnLayout, max_row_bytes: int) -> _Columns | None:
    """Return the columns of one file, or None if the file has no first row that can be read."""
    reader = reader_of(path)
    if path.is_dir():
        return _Columns(path, 0, [""], [])
    if not isinstance(reader, partial):
        return _Columns(path, 0, [*layout.text_keys], [])
    tabs = reader.keywords["tabs"]
    fields = first_fields(path, max_row_bytes, tabs=tabs)
    if fields is None:
        return None
    texts = text_columns(path, layout, fields, tabs=tabs)
    return _Columns(path, 0, texts, []) if layout.has_names else _Columns(path, len(fields), texts, fields)


def _difference(first: _Columns, other: _Columns) -> str:
    """Return a clause about columns of two files that differ, or an empty string."""
    if first.width and other.width and first.width != other.width:
        return f"has {other.width} columns, and {first.path} has {first.width}"
    if len(first.texts) != len(other.texts):
        return f"has {len(other.texts)} columns of text, and {first.path} has {len(first.texts)}"
    if any(one and two and one != two for one, two in zip(first.texts, other.texts, strict=True)):
        return (
            f"has the text columns {shown_names(other.texts)}, and {first.path} has {shown_names(first.texts)} "
            "in this order"
        )
    return ""
