"""Reads what some replicas are fed, shuffle window by shuffle window.

Decides: which examples of a shuffle window are read, and when. Never: what a batch holds.

    reader = BlockReader(examples, plan, order, range(0, 2))
    features, labels = reader.take(plan.positions(step, 0))
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from distrain.batch import Memory
from distrain.data.collate import concatenate_features
from distrain.data.examples import Examples, Features, Take
from distrain.data.plan import EpochPlan
from distrain.data.shuffle import Block, ShuffledOrder


class BlockReader:
    """Reads what some replicas are fed, in the order of the steps, block by block: one is held."""

    def __init__(self, examples: Examples, plan: EpochPlan, order: ShuffledOrder, replicas: range) -> None:
        self._examples = examples
        self._plan = plan
        self._order = order
        self._replicas = replicas
        self._first_position = -1  # of the block that is held
        self._positions = np.zeros(0, np.int64)  # those of it that are fed
        self._take: Take | None = None
        self._memory = _KeptMemory()
        self._weights: tuple[int, np.ndarray] | None = None

    def take(self, positions: range) -> tuple[Features, np.ndarray]:
        """Features and labels at `positions`, neighbours that one of the replicas is fed."""
        pieces = []
        for block, rows in self._rows(positions):
            take = self.hold(block)
            start = int(np.searchsorted(self._positions, block.first_position + rows.start))
            pieces.append(take(start, start + len(rows)))
        return concatenate_features(pieces)

    def hold(self, block: Block) -> Take:
        """Read a block, in place of the one that is held, unless it is that one; gives what is fed of it."""
        if self._take is not None and self._first_position == block.first_position:
            return self._take
        stop = block.first_position + block.size
        self._first_position = block.first_position
        self._positions = self._plan.positions_between(block.first_position, stop, self._replicas)
        rows = self._positions - block.first_position
        chosen = rows if block.permutation is None else block.permutation[rows]
        if self._take is None:
            self._examples.expect(block.runs)
        self._take = self._examples.load(block.runs, chosen, self._memory.again())
        self._examples.expect(self._order.runs_after(block))  # read from disk while steps compute
        return self._take

    def weights(self, positions: range) -> np.ndarray:
        """Weights at `positions`, float32."""
        if self._examples.weights is None:
            return np.ones(len(positions), np.float32)
        pieces = []
        for block, rows in self._rows(positions):
            if self._weights is None or self._weights[0] != block.first_position:
                self._weights = (block.first_position, self._examples.weights[block.examples()])
            pieces.append(self._weights[1][rows.start : rows.stop])
        return np.concatenate(pieces)

    def _rows(self, positions: range) -> Iterator[tuple[Block, range]]:
        start = positions.start
        while start < positions.stop:
            block = self._order.block_of(start)
            stop = min(positions.stop, block.first_position + block.size)
            yield block, range(start - block.first_position, stop - block.first_position)
            start = stop


class _KeptMemory:
    """Memory for one block after the other: each is given what the one before was given.

    The system sets fresh memory to zero, page by page, which took longer than copying a block's rows there.
    """

    def __init__(self) -> None:
        self._kept: list[np.ndarray] = []
        self._num_given = 0

    def again(self) -> Memory:
        """For the next block; the one before is no more."""
        self._num_given = 0
        return self._give

    def _give(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        number, self._num_given = self._num_given, self._num_given + 1
        if number == len(self._kept):
            self._kept.append(np.empty(0, np.uint8))
        if size > len(self._kept[number]):
            self._kept[number] = np.empty(size + size // 16, np.uint8)  # blocks differ by little
        return self._kept[number][:size].view(dtype).reshape(shape)
