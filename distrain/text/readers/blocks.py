"""Labelled texts in blocks, as `distrain prepare` works on them.

Decides: how many rows make a block. Never: reads anything.

    for block in grouped(rows):                              # rows: LabelledText, one after the other
        block.texts, block.labels, block.label_of, block.location(0)

The file alone decides where a block begins. Several processes that read the same file can therefore divide the blocks
among themselves by number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distrain.errors import DataError
from distrain.text.readers.columns import LabelledText, location
from distrain.text.readers.numbers import MAX_FLOAT32, parse_number
from distrain.text.readers.texts import Texts

BLOCK_ROWS = 4096  # rows in a block at most
BLOCK_CHARACTERS = 2**20  # a block ends with the row that reaches this size


class LabelledBlock(NamedTuple):
    """Consecutive rows of a file or folder.

    Attributes:
        texts: the texts of the rows.
        labels: distinct labels in order of appearance.
        label_of: int64 `[n]`: index into `labels` for each row.
        paths: the file of each row.
        rows: int64 `[n]`: number of each row, from 1; 0 if a whole file is one row.
        lines: int64 `[n]`: number of the line that a row begins on, from 1; 0 if the format has no lines.
        empty: int64: indices of the rows whose text is empty.
        weights: float32 `[n]`: weight of each row; None if rows have no weights.
    """

    texts: Texts
    labels: list[str]
    label_of: np.ndarray
    paths: Sequence[Path]
    rows: np.ndarray
    lines: np.ndarray
    empty: np.ndarray
    weights: np.ndarray | None = None

    def location(self, index: int) -> str:
        """Return the location of row `index` of the block, for messages."""
        return location(self.paths[index], int(self.rows[index]), int(self.lines[index]))


def grouped(rows: Iterable[LabelledText]) -> Iterator[LabelledBlock]:
    """Yield blocks of the rows."""
    waiting: list[LabelledText] = []
    characters = 0
    for row in rows:
        waiting.append(row)
        characters += len(row.text) + len(row.label)  # a row may have thousands of labels
        if len(waiting) >= BLOCK_ROWS or characters >= BLOCK_CHARACTERS:
            yield _block(waiting)
            waiting, characters = [], 0
    if waiting:
        yield _block(waiting)


def _block(rows: list[LabelledText]) -> LabelledBlock:
    labels, texts, paths, numbers, lines, weights = zip(*rows, strict=True)
    empty = [index for index, text in enumerate(texts) if not text or text.isspace()]
    distinct = list(dict.fromkeys(labels))
    index = {label: number for number, label in enumerate(distinct)}
    label_of = np.array([index[label] for label in labels])
    positions = np.array(numbers), np.array(lines), np.array(empty, np.int64)
    row_weights = None if weights[0] is None else np.array([_weight(row) for row in rows], np.float32)
    return LabelledBlock(Texts.of(texts), distinct, label_of, paths, *positions, row_weights)


def _weight(row: LabelledText) -> float:
    number = parse_number(row.weight or "")
    if number is None or not 0 <= number <= MAX_FLOAT32:
        what = f"the weight {row.weight[:60]!r} is not a finite number >= 0" if row.weight else "the weight is missing"
        raise DataError(f"{row.location}: {what}. Every row needs one; correct it, or remove the row.")
    return number
