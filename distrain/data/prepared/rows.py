"""Ragged rows in memory, and how rows are picked and concatenated.

Decides: the arrays that represent rows. Never: where rows come from, or whether their values are in range.

    >>> rows = Rows(np.array([0, 2, 3]), np.array([4, 7, 1], np.int32), None, np.array([0, 1], np.int32))
    >>> picked, max_column = pick_rows([RowSpan(rows, 0, 2)], np.array([1, 0]))
    >>> picked.columns.tolist(), max_column
    ([1, 4, 7], 7)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from distrain.batch import Memory
from distrain.data.row_kernels import copy_rows


class Rows(NamedTuple):
    """Ragged rows, n in number.

    Attributes:
        row_splits: int64 `[n + 1]`, from 0 on: row `i` is `columns[row_splits[i]:row_splits[i + 1]]`.
        columns: int32 `[row_splits[-1]]`: feature columns, ascending within a row, or word ids in text order.
        values: float32 `[row_splits[-1]]`: the value of each feature column; None for word ids.
        labels: class numbers from 0, int32 `[n]`; or targets, float32 `[n]`; or sets of labels, uint8
            `[n, ceil(labels / 8)]`, a bit for each label as `np.packbits` orders them.
        weights: float32 `[n]`: weight of each row; None if each row weighs 1.
    """

    row_splits: np.ndarray
    columns: np.ndarray
    values: np.ndarray | None
    labels: np.ndarray
    weights: np.ndarray | None = None

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.labels)

    def slice(self, start: int, stop: int) -> Rows:
        """Rows start .. stop - 1, as views where possible."""
        first, last = self.row_splits[start], self.row_splits[stop]
        values = None if self.values is None else self.values[first:last]
        splits = self.row_splits[start : stop + 1] - first
        weights = None if self.weights is None else self.weights[start:stop]
        return Rows(splits, self.columns[first:last], values, self.labels[start:stop], weights)


class RowSpan(NamedTuple):
    """Rows start .. stop - 1 of `rows`, as a reference without any slicing."""

    rows: Rows
    start: int
    stop: int


def pick_rows(spans: Sequence[RowSpan], indices: np.ndarray, memory: Memory = np.empty) -> tuple[Rows, int]:
    """Copy some rows of several spans; the rows are read in the order of the spans.

    Args:
        spans: at least one span; `row_splits` must be in range, but columns may have any value.
        indices: int64 `[k]`: unique row indices into the concatenated spans, in output order.
        memory: allocator for columns and values of the result.

    Returns:
        The picked rows, and their largest column as an unsigned number, so that a negative column appears large.
    """
    lengths = span_lengths(spans)
    labels = np.concatenate([rows.labels[start:stop] for rows, start, stop in spans])
    weights = [rows.weights[start:stop] for rows, start, stop in spans if rows.weights is not None]
    splits = np.zeros(len(indices) + 1, np.int64)
    np.cumsum(lengths[indices], out=splits[1:])
    columns = memory((int(splits[-1]),), np.int32)
    values = None if spans[0].rows.values is None else memory((int(splits[-1]),), np.float32)
    out_values = _NO_VALUES if values is None else values
    targets = np.full(len(lengths), -1)
    targets[indices] = np.arange(len(indices))
    max_column = offset = 0
    for rows, start, stop in spans:
        own = targets[offset : offset + stop - start]
        own_values = _NO_VALUES if rows.values is None else rows.values
        found = copy_rows(rows.row_splits, rows.columns, own_values, start, own, splits, columns, out_values)
        max_column, offset = max(max_column, found), offset + stop - start
    picked_weights = np.concatenate(weights)[indices] if weights else None
    return Rows(splits, columns, values, labels[indices], picked_weights), max_column


_NO_VALUES = np.zeros(0, np.float32)


def span_lengths(spans: Iterable[RowSpan]) -> np.ndarray:
    """Number of columns of every row of the spans, int64."""
    splits = [_NO_SPLITS, *(rows.row_splits[start : stop + 1] for rows, start, stop in spans)]
    return np.concatenate([each[1:] for each in splits]) - np.concatenate([each[:-1] for each in splits])


_NO_SPLITS = np.zeros(1, np.int64)


def concatenate_rows(pieces: Sequence[Rows]) -> Rows:
    """All rows of `pieces`, in order."""
    if len(pieces) == 1:
        return pieces[0]
    ends = np.cumsum([0, *(piece.row_splits[-1] for piece in pieces)])
    splits = [piece.row_splits[:-1] + end for piece, end in zip(pieces, ends, strict=False)]
    values = [piece.values for piece in pieces if piece.values is not None]
    weights = [piece.weights for piece in pieces if piece.weights is not None]
    return Rows(
        np.concatenate([*splits, ends[-1:]]).astype(np.int64),
        np.concatenate([piece.columns for piece in pieces]),
        np.concatenate(values) if values else None,
        np.concatenate([piece.labels for piece in pieces]),
        np.concatenate(weights) if weights else None,
    )
