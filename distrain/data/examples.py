"""The interface of a source of examples, and the forms of features that a source returns.

Decides: what a source must offer. Never: which examples are read, or in which order.

    rows = examples.load(np.array([[0, 256]]), np.array([17, 3, 5]))     # three of 256 examples, in this order
    features, labels, weights = rows(0, 2)                               # the examples 17 and 3
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from distrain.batch import Memory
from distrain.data.shuffle import SHUFFLE_SPAN, SHUFFLE_WINDOW, ShuffledOrder, epoch_order


class CsrRows(NamedTuple):
    """Sparse rows of one batch.

    Attributes:
        row_ids: int32 `[nnz]`, ascending: the row of each entry.
        columns: int32 `[nnz]`: the column of each entry.
        values: float32 `[nnz]`: the value of each entry.
    """

    row_ids: np.ndarray
    columns: np.ndarray
    values: np.ndarray


class PackedRows(NamedTuple):
    """Consecutive rows of word ids, laid out as in `WordRows`.

    Attributes:
        row_ids: int32 `[packed_tokens / pad_multiple]`, ascending: the row of each chunk of `pad_multiple` tokens.
        words: int32 `[packed_tokens]`: word ids, with id 0 for padding.
    """

    row_ids: np.ndarray
    words: np.ndarray


Features = Any  # a nest of np.ndarray, CsrRows and PackedRows
RowNests = tuple[Features, Any, Any]  # features, labels and weights; `()` in place of labels or weights that are absent
RowReader = Callable[[int, int], RowNests]  # (start, stop) -> rows


class LoadRows(Protocol):
    """Loads some examples of a shuffle window."""

    def __call__(self, spans: np.ndarray, indices: np.ndarray, memory: Memory = np.empty, epoch: int = 0) -> RowReader:
        """Load examples.

        Args:
            spans: int64 `[s, 2]`: (start, stop) example numbers of each span of neighbouring examples.
            indices: int64 `[k]`: unique indices into the concatenated spans, in output order.
            memory: allocator for large arrays; each array must keep its values until the last call of the reader.
            epoch: epoch from 0, which chooses the random numbers of augmentation.

        Returns:
            A reader that copies the loaded examples start .. stop - 1 of 0 .. k - 1 into features, labels, weights.
        """


@dataclass(frozen=True)
class Examples:
    """A source of examples.

    Attributes:
        num_examples: number of examples.
        load: loads some examples of a shuffle window.
        num_columns: number of columns, or of word ids, by input name (see `nests`). The name is "" for a single input.
            Dense inputs have no item.
        digest: hex digest that identifies the data.
        will_need: asks the system to read spans, int64 `[s, 2]`, from disk ahead of their use.
        row_sizes: functions by input name that map spans to the entries, or packed tokens, of each row, int64.
        read_labels: (start, stop) -> labels of neighbouring examples, read without features; None if `load` alone can.
        window_size: most examples in a shuffle window.
        span_size: neighbouring examples in a span of a shuffle window.
        loads_ahead: whether `load` returns at once while other processes read, so that the next window may load early.
    """

    num_examples: int
    load: LoadRows
    num_columns: Mapping[str, int]
    digest: str
    will_need: Callable[[np.ndarray], None] = lambda spans: None
    row_sizes: Mapping[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)
    read_labels: Callable[[int, int], Any] | None = None
    window_size: int = SHUFFLE_WINDOW
    span_size: int = SHUFFLE_SPAN
    loads_ahead: bool = False

    def order(self, *, seed: int, epoch: int, shuffle: bool = True) -> ShuffledOrder:
        """Return the order of one epoch; see `shuffle.epoch_order`."""
        return epoch_order(
            self.num_examples,
            seed=seed,
            epoch=epoch,
            window_size=self.window_size,
            span_size=self.span_size,
            shuffle=shuffle,
        )
