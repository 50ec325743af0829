"""Rows of any length -> the arrays of a step, with the offset of each row in the epoch.

Decides: padding at the end of a batch, and offsets that random numbers of dropout depend on. Never: reads rows, or
knows replicas.

    offsets = RowOffsets(examples.row_sizes[""], order)
    rows = word_rows(packed, offsets.offset_of(position), num_words)           # WordRows
    rows = sparse_rows(csr_rows, offsets.offset_of(position), num_rows)        # SparseRows

The offset of a row counts the entries, or packed tokens, of all earlier rows of the epoch. Offsets do not depend on the
division of the epoch into batches. Random numbers keyed by offsets therefore do not depend on the division either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from distrain.batch import SparseRows, WordRows
from distrain.data.examples import CsrRows, Features, PackedRows, RowNests
from distrain.data.nests import leaves, map_nest
from distrain.data.row_kernels import order_by_column
from distrain.data.shuffle import ShuffledOrder, ShuffleWindow


class RowOffsets:
    """Offsets of an epoch's rows, computed one shuffle window at a time.

    Args:
        row_sizes: spans -> entries, or packed tokens, of each row, as in `Examples`.
        order: order of the epoch.
    """

    def __init__(self, row_sizes: Callable[[np.ndarray], np.ndarray], order: ShuffledOrder) -> None:
        self._row_sizes = row_sizes
        self._order = order
        self._totals = {0: 0}  # first position of a window -> sum of all earlier sizes
        self._first_position = 0  # of the loaded window
        self._offsets = np.zeros(0, np.int64)  # of each position of the loaded window

    def offset_of(self, position: int) -> int:
        """Sum of the entries, or packed tokens, of all rows at earlier positions."""
        if not 0 <= position - self._first_position < len(self._offsets):
            self._load(self._order.window_of(position))
        return int(self._offsets[position - self._first_position])

    def _load(self, window: ShuffleWindow) -> None:
        while max(self._totals) < window.first_position:
            last = self._order.window_of(max(self._totals))
            self._add_total(last, self._row_sizes(last.spans))
        sizes = self._row_sizes(window.spans)
        self._add_total(window, sizes)
        if window.permutation is not None:
            sizes = sizes[window.permutation]
        self._offsets = self._totals[window.first_position] + np.cumsum(sizes) - sizes
        self._first_position = window.first_position

    def _add_total(self, window: ShuffleWindow, sizes: np.ndarray) -> None:
        self._totals[window.first_position + len(sizes)] = self._totals[window.first_position] + int(sizes.sum())


def collate(
    features: Features, offsets: Mapping[str, RowOffsets], positions: range, num_columns: Mapping[str, int]
) -> Features:
    """Convert rows of any length to `WordRows` or `SparseRows`; other features stay unchanged.

    Args:
        features: a nest of arrays, `CsrRows` and `PackedRows`.
        offsets: row offsets by input name.
        positions: positions of the rows in the epoch.
        num_columns: exclusive upper bounds of columns or word ids, by input name.
    """

    def convert(value: Any, name: str) -> Any:
        if isinstance(value, PackedRows):
            return word_rows(value, offsets[name].offset_of(positions.start), num_columns[name])
        if isinstance(value, CsrRows):
            return sparse_rows(value, offsets[name].offset_of(positions.start), len(positions))
        return value

    return map_nest(convert, features)


def word_rows(packed: PackedRows, first_token: int, num_words: int) -> WordRows:
    """Convert packed rows for a step, and pad the last row so that few batch sizes occur.

    TensorFlow prepares neural network kernels for each new size. Padding adds at most a 32nd.

    Args:
        packed: at least one row.
        first_token: packed tokens of all earlier rows of the epoch.
        num_words: exclusive upper bound of word ids.
    """
    num_chunks = len(packed.row_ids)
    pad_multiple = len(packed.words) // num_chunks
    step = 1 << max(0, num_chunks.bit_length() - 6)
    added = -num_chunks % step
    row_ids = np.pad(packed.row_ids, (0, added), mode="edge")
    words = np.pad(packed.words, (0, added * pad_multiple))
    order, segments, touched = order_by_column(words, num_words)
    num_padding = len(words) - np.count_nonzero(words)  # padding has id 0, so it comes first and is never absent
    return WordRows(words, row_ids, np.int64(first_token), order[num_padding:], segments[num_padding:] - 1, touched[1:])


def sparse_rows(rows: CsrRows, first_entry: int, num_rows: int) -> SparseRows:
    """Convert sparse rows for a step, and add an entry of value 0 to the last row if it is empty.

    Args:
        rows: entries of the rows.
        first_entry: entries of all earlier rows of the epoch.
        num_rows: number of rows.
    """
    row_ids, columns, values = rows
    if not len(row_ids) or row_ids[-1] != num_rows - 1:
        row_ids = np.append(row_ids, np.int32(num_rows - 1))
        columns = np.append(columns, np.int32(0))
        values = np.append(values, np.float32(0))
    return SparseRows(row_ids, columns, values, np.int64(first_entry))


def concatenate_nests(pieces: list[RowNests], sizes: list[int]) -> RowNests:
    """Concatenate rows of the same structure.

    Args:
        pieces: features, labels and weights of each piece.
        sizes: number of rows of each piece.
    """
    if len(pieces) == 1:
        return pieces[0]
    first_rows = np.cumsum([0, *sizes[:-1]])
    columns = iter(list(zip(*([value for _, value in leaves(piece)] for piece in pieces), strict=True)))

    def join(first: Any, name: str) -> Any:
        values = next(columns)
        if isinstance(first, (CsrRows, PackedRows)):
            row_ids = [value.row_ids + np.int32(start) for value, start in zip(values, first_rows, strict=True)]
            others = zip(*(value[1:] for value in values), strict=True)
            return type(first)(np.concatenate(row_ids), *map(np.concatenate, others))
        return np.concatenate(values)

    return map_nest(join, pieces[0])
