"""Labelled texts from files, read in bounded memory.

Decides: which reader reads a path, and how a folder of files becomes rows. Never: what class a label names
(`labels.py`), or how bytes become text (`lines.py`).

    tally = Tally()
    for row in read_rows(Path("train.csv.gz"), ColumnLayout(label="class", texts=("title", "body")), tally):
        row.label, row.text, row.location                       # location: "train.csv.gz, row 7 (line 9)"
    tally.sentences(Path("train.csv.gz"))                    # messages about repaired lines

Rows count from 1 as a person counts rows in the file: a header is row 1, a blank line is no row. Readers repair and
count harmless faults. If a fault makes the label of a text doubtful, reading ends with an error that names file, row
and cure. The formats are described in `delimited.py` (CSV, TSV), `records.py` (JSON
Lines) and `parquet.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from distrain.errors import ConfigurationError, DataError
from distrain.text.readers.blocks import LabelledBlock, grouped
from distrain.text.readers.byte_streams import READ_ERRORS, open_bytes, unreadable
from distrain.text.readers.columns import ColumnLayout, LabelledText, NoRowsError
from distrain.text.readers.delimited import delimited_blocks, delimited_rows
from distrain.text.readers.input_files import entries_of, suffix_of
from distrain.text.readers.no_text import kind_of, refuse_no_text
from distrain.text.readers.parquet import parquet_rows
from distrain.text.readers.records import json_rows
from distrain.text.readers.tally import BOM, Tally

MAX_ROW_BYTES = 64 * 2**20
_PEEKED_BYTES = 2**13  # of a file: text has no NUL byte in them, and files of other programs nearly always do
IGNORED_FOLDERS = ("unsup",)  # aclImdb/train/unsup holds reviews without labels


def read_rows(
    path: Path, layout: ColumnLayout, tally: Tally, *, max_row_bytes: int = MAX_ROW_BYTES
) -> Iterator[LabelledText]:
    """Yield the rows of a file, or of a folder with one folder of files per class, in order.

    Args:
        path: .csv (also any unknown name), .tsv, .jsonl or .ndjson, .parquet, or a folder of one folder per
            class. Text files may be compressed by gzip or zstd. Files of a folder come sorted by class and
            by name.
        layout: columns to read; ignored for a folder.
        tally: counts rows, bytes and repaired lines.
        max_row_bytes: longest row allowed, in bytes. Reading takes a few times as much memory.

    Raises:
        DataError: the file is missing, empty, damaged or not of its kind, or a row breaks a rule.
        ConfigurationError: a column of the layout does not exist, or pyarrow is needed and not installed.
    """
    rows_before = tally.rows
    for row in reader_of(path)(path, layout, tally, max_row_bytes):
        tally.count_rows(row.path, 1)
        if not row.text or row.text.isspace():
            tally.count_empty(row.location)
        yield row
    if tally.rows == rows_before:
        raise NoRowsError(f"{path} holds no rows. Each row needs a label and a text.")


def read_blocks(
    path: Path, layout: ColumnLayout, tally: Tally, *, max_row_bytes: int = MAX_ROW_BYTES, exact: bool = False
) -> Iterator[LabelledBlock]:
    """Yield the rows of `read_rows` in blocks, several times faster if a file is plain CSV or TSV.

    Unless `exact`, a text in a block has the same words as in `read_rows`, but other characters may lie between them:
    see `Texts`.
    """
    rows_before = tally.rows
    reader = reader_of(path)
    blocks: Iterator[LabelledBlock]
    if isinstance(reader, partial) and not exact:
        blocks = delimited_blocks(path, layout, tally, max_row_bytes, **reader.keywords)
    else:
        blocks = grouped(reader(path, layout, tally, max_row_bytes))
    for block in blocks:
        tally.count_rows(block.paths[0], block.texts.num_rows)
        for index in block.empty.tolist():
            tally.count_empty(block.location(index))
        yield block
    if tally.rows == rows_before:
        raise NoRowsError(f"{path} holds no rows. Each row needs a label and a text.")


_Reader = Callable[[Path, ColumnLayout, Tally, int], Iterator[LabelledText]]


def reader_of(path: Path) -> _Reader:
    """Return the function that reads a path; for CSV and TSV it is a `partial`."""
    if path.is_dir():
        return _folder_rows
    if not path.exists():
        raise DataError(f"{path} does not exist. Check the path.")
    if not path.is_file():
        raise DataError(f"{path} is neither a file nor a folder. Save what it delivers to a file first.")
    suffix = suffix_of(path)
    if suffix in (".parquet", ".pq"):
        return parquet_rows
    if suffix in (".jsonl", ".ndjson", ".json"):
        return json_rows
    return partial(delimited_rows, tabs=suffix in (".tsv", ".tab"))


def _folder_rows(path: Path, layout: ColumnLayout, tally: Tally, max_row_bytes: int) -> Iterator[LabelledText]:
    """Yield the files of `path/<class>/`, sorted by class and by name, without hidden files."""
    if layout.weight is not None:
        raise ConfigurationError(f"{path} is a folder of texts without columns, so it has no --weight-column.")
    folders = [folder for folder in entries_of(path) if folder.is_dir()]
    for ignored in (folder for folder in folders if folder.name in IGNORED_FOLDERS):
        tally.notes.append(f"{ignored} is left out: its texts have no label.")
    folders = [folder for folder in folders if folder.name not in IGNORED_FOLDERS]
    seen: dict[Path, Path] = {}
    if not folders:
        raise DataError(f"{path} is a folder without folders in it. Each class needs one, holding one file per text.")
    for folder in folders:
        if (first := seen.setdefault(folder.resolve(), folder)) is not folder:
            raise DataError(f"{folder} is a link to {first}, so its texts would count twice. Remove one of the two.")
        if not (files := entries_of(folder)):
            tally.notes.append(f"{folder} holds no texts, so {folder.name!r} is no class.")
        for file in files:
            if file.is_dir():
                raise DataError(
                    f"{file} is a folder inside that of class {folder.name!r}, which should hold texts only. "
                    "Give the folder that holds the classes, such as aclImdb/train."
                )
            if not file.is_file():
                what = "a link to nothing" if file.is_symlink() else "neither a file nor a folder"
                raise DataError(f"{file} is {what}. Restore the text, or remove the name.")
            refuse_no_text(file, kind_of(file.name))
            yield LabelledText(folder.name, _read_text(file, tally, max_row_bytes), file, 0, 0)


def _read_text(file: Path, tally: Tally, max_bytes: int) -> str:
    try:
        with open_bytes(file, tally) as stream:
            raw = stream.read(max_bytes + 1)
            refuse_no_text(file, "a file with NUL bytes" if b"\0" in raw[:_PEEKED_BYTES] else "")
            tally.count_text(file, len(raw))
    except READ_ERRORS as error:
        raise unreadable(file, error) from None
    if len(raw) > max_bytes:
        raise DataError(
            f"{file} is longer than {max_bytes / 2**20:,.0f} MiB. A larger --memory-mib allows longer texts."
        )
    return tally.clean(raw.removeprefix(BOM), file, 0)
