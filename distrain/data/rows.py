"""Blocks of ragged rows in memory, and how one is made of others.

Decides: what a row is. Never: where rows come from, or whether they are in range.

    block = concatenate_rows([rows, others])
    picked, highest_column = pick_rows([Span(block, 0, 256)], np.array([17, 3, 5]))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from distrain.batch import Memory
from distrain.data.row_kernels import copy_rows


class Rows(NamedTuple):
    """A block of `n` ragged rows.

    Attributes:
        row_splits: int64 `[n + 1]`, starting at 0: row `i` is `columns[row_splits[i]:row_splits[i + 1]]`.
        columns: int32 `[row_splits[-1]]`: feature columns, ascending within a row, or word ids in text order.
        values: float32, as long as `columns`; None where a column says it all (sequences).
        labels: int32 `[n]`: class numbers from 0.
    """

    row_splits: np.ndarray
    columns: np.ndarray
    values: np.ndarray | None
    labels: np.ndarray

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.labels)

    def slice(self, start: int, stop: int) -> Rows:
        """Rows `start` up to `stop`, as views where possible."""
        first, last = self.row_splits[start], self.row_splits[stop]
        values = None if self.values is None else self.values[first:last]
        splits = self.row_splits[start : stop + 1] - first
        return Rows(splits, self.columns[first:last], values, self.labels[start:stop])


class Span(NamedTuple):
    """Rows `first` up to `last` of a block, which may be much longer."""

    rows: Rows
    first: int
    last: int


def pick_rows(spans: Sequence[Span], chosen: np.ndarray, memory: Memory = np.empty) -> tuple[Rows, int]:
    """Copy some rows of several spans into one block; rows are read in the order of the spans.

    Args:
        spans: at least one. Only `row_splits` needs to be in range.
        chosen: int64 `[k]`: row numbers within the spans one after the other, in the order wanted, none twice.
        memory: from where the block's columns and values come.

    Returns:
        The rows, and the highest column among them, negative ones taken as unsigned.
    """
    lengths = span_lengths(spans)
    labels = np.concatenate([rows.labels[first:last] for rows, first, last in spans])
    splits = np.zeros(len(chosen) + 1, np.int64)
    np.cumsum(lengths[chosen], out=splits[1:])
    columns = memory((int(splits[-1]),), np.int32)
    values = None if spans[0].rows.values is None else memory((int(splits[-1]),), np.float32)
    out_values = _NO_VALUES if values is None else values
    places = np.full(len(lengths), -1)
    places[chosen] = np.arange(len(chosen))
    highest = start = 0
    for rows, first, last in spans:
        stop = start + last - first
        own_values = _NO_VALUES if rows.values is None else rows.values
        seen = copy_rows(
            rows.row_splits, rows.columns, own_values, first, places[start:stop], splits, columns, out_values
        )
        highest, start = max(highest, seen), stop
    return Rows(splits, columns, values, labels[chosen]), highest


_NO_VALUES = np.zeros(0, np.float32)


def span_lengths(spans: Iterable[Span]) -> np.ndarray:
    """Number of columns of every row of the spans, int64."""
    splits = [_NO_SPLITS, *(rows.row_splits[first : last + 1] for rows, first, last in spans)]
    return np.concatenate([each[1:] for each in splits]) - np.concatenate([each[:-1] for each in splits])


_NO_SPLITS = np.zeros(1, np.int64)


def concatenate_rows(blocks: Sequence[Rows]) -> Rows:
    """One block holding the rows of all `blocks` in order."""
    if len(blocks) == 1:
        return blocks[0]
    ends = np.cumsum([0, *(block.row_splits[-1] for block in blocks)])
    splits = [block.row_splits[:-1] + end for block, end in zip(blocks, ends, strict=False)]
    values = [block.values for block in blocks if block.values is not None]
    return Rows(
        np.concatenate([*splits, ends[-1:]]).astype(np.int64),
        np.concatenate([block.columns for block in blocks]),
        np.concatenate(values) if values else None,
        np.concatenate([block.labels for block in blocks]),
    )
