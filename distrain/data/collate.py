"""Rows of any length made ready for a step: placed in the epoch's stream, and filled up.

Decides: which numbers of the epoch's stream a row has. Never: reads rows, or knows replicas.

    stream = RowStream(examples.sizes[""], order)
    rows = word_rows(packed, stream.before(position), num_words)           # WordRows
    rows = sparse_rows(csr_rows, stream.before(position), num_rows)        # SparseRows

All rows of an epoch, in its order, make up one stream of entries or of packed tokens. Where a batch stands in it does
not depend on how the epoch is divided into batches, so that random numbers that are keyed by it do not either.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from distrain.batch import SparseRows, WordRows
from distrain.data.examples import CsrRows, Features, PackedRows
from distrain.data.row_kernels import order_by_column
from distrain.data.shuffle import Block, ShuffledOrder


class RowStream:
    """Where rows stand in an epoch's stream, worked out block by block: one block's sizes are held.

    Args:
        sizes: runs -> entries, or packed tokens, of each of their rows, as in `Examples`.
        order: of the epoch.
    """

    def __init__(self, sizes: Callable[[np.ndarray], np.ndarray], order: ShuffledOrder) -> None:
        self._sizes = sizes
        self._order = order
        self._totals = {0: 0}  # by the first position of each block walked so far, and of the next: what is before it
        self._first_position = 0  # of the block that is held
        self._before = np.zeros(0, np.int64)  # what is before each of its positions

    def before(self, position: int) -> int:
        """Entries, or packed tokens, of all rows at earlier positions."""
        if not 0 <= position - self._first_position < len(self._before):
            self._hold(self._order.block_of(position))
        return int(self._before[position - self._first_position])

    def _hold(self, block: Block) -> None:
        while max(self._totals) < block.first_position:
            last = self._order.block_of(max(self._totals))
            self._walked(last, self._sizes(last.runs))
        sizes = self._sizes(block.runs)
        self._walked(block, sizes)
        if block.permutation is not None:
            sizes = sizes[block.permutation]
        self._before = self._totals[block.first_position] + np.cumsum(sizes) - sizes
        self._first_position = block.first_position

    def _walked(self, block: Block, sizes: np.ndarray) -> None:
        self._totals[block.first_position + len(sizes)] = self._totals[block.first_position] + int(sizes.sum())


def word_rows(packed: PackedRows, first_token: int, num_words: int) -> WordRows:
    """The rows as a step takes them; the last one's gap is made longer, so that few sizes of batches occur.

    Kernels of neural networks are prepared for each new size of an array. Sizes are rounded up by at most a 32nd.

    Args:
        packed: the rows, of which there is at least one.
        first_token: packed tokens of all rows before, in the epoch.
        num_words: word ids are below it.
    """
    num_chunks = len(packed.row_ids)
    pad_multiple = len(packed.words) // num_chunks
    step = 1 << max(0, num_chunks.bit_length() - 6)
    added = -num_chunks % step
    row_ids = np.pad(packed.row_ids, (0, added), mode="edge")
    words = np.pad(packed.words, (0, added * pad_multiple))
    order, segments, touched = order_by_column(words, num_words)
    num_gaps = len(words) - np.count_nonzero(words)  # at least one: they come first, as number 0 of those touched
    return WordRows(words, row_ids, np.int64(first_token), order[num_gaps:], segments[num_gaps:] - 1, touched[1:])


def sparse_rows(rows: CsrRows, first_entry: int, num_rows: int) -> SparseRows:
    """The rows as a step takes them: the last one is given an entry, if it has none.

    Args:
        rows: the rows.
        first_entry: entries of all rows before, in the epoch.
        num_rows: how many rows there are.
    """
    row_ids, columns, values = rows
    if not len(row_ids) or row_ids[-1] != num_rows - 1:
        row_ids = np.append(row_ids, np.int32(num_rows - 1))
        columns = np.append(columns, np.int32(0))
        values = np.append(values, np.float32(0))
    return SparseRows(row_ids, columns, values, np.int64(first_entry))


def concatenate_features(pieces: list[tuple[Features, np.ndarray]]) -> tuple[Features, np.ndarray]:
    """Features and labels of all pieces, one after the other."""
    if len(pieces) == 1:
        return pieces[0]
    labels = [piece_labels for _, piece_labels in pieces]
    first_rows = np.cumsum([0, *(len(piece) for piece in labels[:-1])])

    def join(features: list[Features]) -> Features:
        if isinstance(features[0], dict):
            return {name: join([piece[name] for piece in features]) for name in features[0]}
        if isinstance(features[0], (CsrRows, PackedRows)):
            row_ids = [piece.row_ids + np.int32(first) for piece, first in zip(features, first_rows, strict=True)]
            others = zip(*(piece[1:] for piece in features), strict=True)
            return type(features[0])(np.concatenate(row_ids), *map(np.concatenate, others))
        return np.concatenate(features)

    return join([features for features, _ in pieces]), np.concatenate(labels)
