"""Reads the examples of some replicas, one shuffle window after another.

Decides: which rows of a shuffle window this process reads, and when. Never: what a batch contains.

    reader = WindowReader(examples, plan, order, replicas=range(0, 2))
    features, labels, weights = reader.read(plan.positions(0, 1))
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from distrain.batch import Memory
from distrain.data.collate import concatenate_nests
from distrain.data.examples import Examples, RowNests, RowReader
from distrain.data.plan import EpochPlan
from distrain.data.shuffle import ShuffledOrder, ShuffleWindow


class WindowReader:
    """Reads positions of `replicas` in the order of the steps, and keeps the rows of one shuffle window in memory.

    Args:
        examples: source of the rows.
        plan: positions of each replica.
        order: order of the epoch.
        replicas: consecutive replicas that this process feeds.
    """

    def __init__(self, examples: Examples, plan: EpochPlan, order: ShuffledOrder, replicas: range) -> None:
        self._examples = examples
        self._plan = plan
        self._order = order
        self._replicas = replicas
        self._first_position = -1  # of the loaded window
        self._positions = np.zeros(0, np.int64)  # positions whose rows are loaded
        self._rows: RowReader | None = None
        self._next: _Window | None = None  # loaded ahead
        self._memory = _ReusedMemory()

    def read(self, positions: range) -> RowNests:
        """Features, labels and weights at `positions`, which belong to one batch of one of the replicas."""
        pieces, sizes = [], []
        for window, offsets in self._order.windows_of(positions):
            rows = self.load(window)
            start = int(np.searchsorted(self._positions, window.first_position + offsets.start))
            pieces.append(rows(start, start + len(offsets)))
            sizes.append(len(offsets))
        return concatenate_nests(pieces, sizes)

    def load(self, window: ShuffleWindow) -> RowReader:
        """Load `window` unless `window` is loaded already; return a reader for this process's rows."""
        if self._rows is not None and self._first_position == window.first_position:
            return self._rows
        self._first_position = window.first_position
        if self._rows is None:
            self._examples.will_need(window.spans)
        ahead, self._next, self._rows = self._next, None, None
        if ahead is None or ahead.first_position != window.first_position:
            ahead = self._loaded(window)
        self._positions, self._rows = ahead.positions, ahead.rows
        self._examples.will_need(self._order.spans_after(window))  # the disk works while steps compute
        after = window.first_position + window.size
        if self._examples.loads_ahead and after < self._plan.num_examples:
            self._next = self._loaded(self._order.window_of(after))
        return ahead.rows

    def _loaded(self, window: ShuffleWindow) -> _Window:
        stop = window.first_position + window.size
        positions = self._plan.positions_between(window.first_position, stop, self._replicas)
        offsets = positions - window.first_position
        indices = offsets if window.permutation is None else window.permutation[offsets]
        rows = self._examples.load(window.spans, indices, self._memory.reuse(), epoch=self._order.epoch)
        return _Window(window.first_position, positions, rows)


class _Window(NamedTuple):
    """The examples of this process in a shuffle window.

    Attributes:
        first_position: position of the window's first example.
        positions: positions of the examples, int64 `[k]`.
        rows: reader of the examples 0 .. k - 1.
    """

    first_position: int
    positions: np.ndarray
    rows: RowReader


class _ReusedMemory:
    """Allocates the arrays of each window in the memory of the window before.

    Linux clears fresh memory page by page, which took longer than copying the rows of a window.
    """

    def __init__(self) -> None:
        self._buffers: list[np.ndarray] = []
        self._next = 0

    def reuse(self) -> Memory:
        """An allocator for the next window; arrays of the window before become invalid."""
        self._next = 0
        return self._allocate

    def _allocate(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        index, self._next = self._next, self._next + 1
        if index == len(self._buffers):
            self._buffers.append(np.empty(0, np.uint8))
        if size > len(self._buffers[index]):
            self._buffers[index] = np.empty(size + size // 16, np.uint8)  # 6% spare, as sizes of windows differ little
        return self._buffers[index][:size].view(dtype).reshape(shape)
