"""Labels of pictures from a table beside them: CSV, TSV or JSON Lines with file name, label and perhaps weight.

Decides: which column is which, and what a label is. Never: opens a picture.

    listing = labelled_images(Path("photos"), Path("photos/labels.csv"))
    listing.files[0], listing.labels[0], listing.class_names      # "photos/1.jpg", 1, ("cat", "dog")

    file_name,label,weight          columns by name, in any order; other columns are left out
    1.jpg,dog,2.5                   without names: file name, label and perhaps weight, in this order
    {"file_name": "1.jpg", "label": "dog"}

Numbers are labels as they are, and lists of numbers in JSON too. Other labels name classes, which count from 0 in the
order of their names. Examples come in the order of the rows.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from distrain.errors import DataError
from distrain.formats.columns import shown
from distrain.formats.pictures.listing import IMAGE_SUFFIXES, ImageListing, image_files

_LOG = logging.getLogger(__name__)

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
_NAMES: Mapping[str, Sequence[str]] = {
    "file name": ("file_name", "filename", "file", "image", "path"),
    "label": ("label", "labels", "class", "y"),
    "weight": ("weight", "weights", "sample_weight"),
}
_MAX_LINE = 2**17  # characters
_MAX_SHOWN = 100  # characters of a value in a message


class _Row(NamedTuple):
    """A picture of the table; `where` names the row."""

    where: str
    name: Any
    label: Any
    weight: Any


def labelled_images(folder: Path, table: Path, class_names: Sequence[str] | None = None) -> ImageListing:
    """Return the pictures that a table names, with their labels.

    Args:
        folder: the folder that the file names count from.
        table: the table.
        class_names: classes in the order of their numbers; default: all labels that are no numbers, by name.

    Raises:
        DataError: the table is damaged, or a row has no label, or names no picture of the folder. A picture that is
            named twice is an error as well. The message names the row.
    """
    rows = list(_rows(table))
    if not rows:
        raise DataError(f"{table} has no rows. Give a row for each picture: its file name and its label.")
    seen: dict[str, str] = {}
    files = []
    for row in rows:
        files.append(str(folder / _checked_name(folder, row)))
        if (first := seen.setdefault(os.path.normpath(files[-1]), row.where)) != row.where:
            raise DataError(
                f"{row.where}: {_short(row.name)!r} stands in {first.rpartition(', ')[2]} already. Remove one row."
            )
    _tell_others(folder, table, seen)
    labels, names = _labels(rows, class_names)
    weights = None if all(row.weight is None for row in rows) else np.array([_weight(row) for row in rows], np.float32)
    return ImageListing(tuple(files), labels, names, weights)


def _rows(table: Path) -> Iterator[_Row]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            lines = _bounded(file, table)
            if table.suffix.lower() in (".jsonl", ".ndjson"):
                yield from _json_rows(lines, table)
            else:
                yield from _delimited_rows(lines, table)
    except OSError as error:
        raise DataError(f"{table} cannot be read: {error.strerror}. Check the path and your permissions.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not UTF-8 at byte {error.start:,} of a block. Save it as UTF-8.") from None


def _bounded(file: Any, table: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(_MAX_LINE + 1):
        number += 1
        if len(line) > _MAX_LINE:
            raise DataError(f"{table}, line {number:,} has over {_MAX_LINE:,} characters. It is damaged, or no table.")
        yield line


def _delimited_rows(lines: Iterator[str], table: Path) -> Iterator[_Row]:
    reader = csv.reader(lines, delimiter="\t" if table.suffix.lower() == ".tsv" else ",", strict=True)
    columns: dict[str, int] | None = None
    width = 0
    number = 0
    try:
        for cells in reader:
            if not cells:
                continue
            where = f"{table}, row {number + 1:,}"
            if columns is None:
                width = len(cells)
                columns = _columns(cells, table)
                if columns:
                    continue
                columns = {name: index for index, name in enumerate(_NAMES) if index < width}
            if len(cells) != width:
                raise DataError(f"{where} has {len(cells)} columns, and the first line {width}. Quote commas in names.")
            number += 1
            yield _Row(where, *(_cell(cells, columns, name) for name in _NAMES))
    except csv.Error as error:
        raise DataError(f"{table}, line {reader.line_num:,} is no CSV: {error}. Write the table again.") from None


def _cell(cells: Sequence[str], columns: Mapping[str, int], name: str) -> str | None:
    return cells[columns[name]] if name in columns else None


def _columns(header: Sequence[str], table: Path) -> dict[str, int]:
    """Return the columns by meaning; empty if the first line is a row, which begins with the name of a picture."""
    if len(header) in (2, 3) and header[0].lower().endswith(IMAGE_SUFFIXES):
        return {}
    names = [name.strip().lower() for name in header]
    found = {meaning: _one_of(names, meaning, table) for meaning in _NAMES}
    return {meaning: names.index(name) for meaning, name in found.items() if name is not None}


def _one_of(names: Sequence[str], meaning: str, table: Path) -> str | None:
    """Return the name of the column with a meaning."""
    found = [name for name in names if name in _NAMES[meaning]]
    if len(found) > 1:
        raise DataError(f"{table} has the columns {shown(found)}, which are all the {meaning}. Keep one of them.")
    if not found and meaning != "weight":
        raise DataError(
            f"{table} has no column for the {meaning}: it has {shown(names)}. Name one {shown(_NAMES[meaning][:1])}."
        )
    return found[0] if found else None


def _json_rows(lines: Iterator[str], table: Path) -> Iterator[_Row]:
    number = 0
    for line in lines:
        if not line.strip():
            continue
        number += 1
        where = f"{table}, row {number:,}"
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is no JSON: {error}. Write the row again.") from None
        if not isinstance(content, dict):
            raise DataError(f'{where} is no object such as {{"file_name": "1.jpg", "label": "dog"}}.')
        found = {meaning: _one_of(list(content), meaning, Path(where)) for meaning in _NAMES}
        yield _Row(where, *(content[name] if name is not None else None for name in found.values()))


def _checked_name(folder: Path, row: _Row) -> str:
    name = row.name.replace("\\", "/").strip() if isinstance(row.name, str) else ""
    path = PurePosixPath(name)
    if not name or "\0" in name:
        raise DataError(f"{row.where} has no file name. Give the name of a picture.")
    if path.is_absolute() or ".." in path.parts:
        raise DataError(
            f"{row.where}: {_short(name)!r} leads out of {folder}. Give a name that counts from this folder."
        )
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise DataError(
            f"{row.where}: {_short(name)!r} is no picture that is read. Its name ends in {shown(IMAGE_SUFFIXES)}."
        )
    try:
        is_there = (folder / name).is_file()
    except OSError:  # such as a name that is too long
        is_there = False
    if not is_there:
        raise DataError(f"{row.where}: {folder / _short(name)} does not exist. Restore the picture, or remove the row.")
    return name


def _labels(rows: Sequence[_Row], class_names: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the labels as numbers, and the names of classes where labels are names."""
    for row in rows:
        if row.label is None or row.label == "" or row.label == []:
            raise DataError(f"{row.where}: {_short(row.name)!r} has no label. Give one, or remove the row.")
    if class_names is None and (numbers := _numbers(rows)) is not None:
        return numbers, ()
    for row in rows:
        if not isinstance(row.label, (str, int)):
            raise DataError(f"{row.where}: the label {_short(row.label)!r} is no name, as labels of other rows are.")
    texts = [str(row.label).strip() for row in rows]
    names = sorted(set(texts)) if class_names is None else list(class_names)
    places = {name: place for place, name in enumerate(names)}
    for row, text in zip(rows, texts, strict=True):
        if text not in places:
            raise DataError(f"{row.where}: the label {_short(text)!r} is none of class_names, {shown(names)}.")
    return np.array([places[text] for text in texts], np.int64), tuple(names)


def _numbers(rows: Sequence[_Row]) -> np.ndarray | None:
    """Return the labels as an array if all of them are numbers, or lists of numbers of one length; else None."""
    labels = [row.label for row in rows]
    if isinstance(labels[0], list):
        for row in rows:
            is_list = isinstance(row.label, list) and all(isinstance(one, (int, float)) for one in row.label)
            if not is_list or len(row.label) != len(labels[0]):
                raise DataError(f"{row.where}: the label is no list of {len(labels[0])} numbers, as row 1 has.")
    try:
        for kind in (np.int64, np.float64):
            if kind is np.float64 or all(_is_whole(label) for label in labels):
                numbers = np.array(labels, kind)
                break
    except (ValueError, TypeError, OverflowError):
        return None
    if numbers.dtype != np.int64:
        with np.errstate(over="ignore"):
            numbers = numbers.astype(np.float32)
    for row, values in zip(rows, numbers, strict=True):
        if not np.all(np.isfinite(values)):
            raise DataError(f"{row.where}: the label {_short(row.label)!r} is no finite number.")
    return numbers


def _is_whole(label: Any) -> bool:
    if isinstance(label, list):
        return all(_is_whole(one) for one in label)
    return isinstance(label, int) or (isinstance(label, str) and label.strip().lstrip("+-").isdecimal())


def _short(value: Any) -> Any:
    """Return a value of a table for a message: of a long text its begin."""
    return f"{value[:_MAX_SHOWN]}..." if isinstance(value, str) and len(value) > _MAX_SHOWN else value


def _weight(row: _Row) -> float:
    try:
        weight = float(row.weight)
    except (TypeError, ValueError, OverflowError):
        weight = math.nan
    if not 0 <= weight <= float(np.finfo(np.float32).max):
        raise DataError(f"{row.where}: the weight {_short(row.weight)!r} is no finite number of at least 0.")
    return weight


def _tell_others(folder: Path, table: Path, named: Mapping[str, str]) -> None:
    others = [file for file in image_files(folder) if os.path.normpath(file) not in named]
    if others:
        _LOG.warning(f"{table} names no label for {len(others):,} pictures of {folder}, such as {others[0]}: left out.")
