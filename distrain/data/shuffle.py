"""The shuffled order of an epoch: a function of (n, seed, epoch).

Decides: which example stands at which position. Never: who reads it.

    >>> sorted(epoch_order(10, seed=1, epoch=0).examples(range(10)).tolist()) == list(range(10))
    True
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from distrain.data.plan import EpochPlan

SHUFFLE_BLOCK = 65_536  # examples shuffled together; about 30 MB of n-gram rows
SHUFFLE_RUN = 256  # neighbours that are read together, so that a block is a few hundred sequential reads


class Block(NamedTuple):
    """Examples that are shuffled together.

    Attributes:
        first_position: the position of its first example.
        runs: int64 `[r, 2]`: (start, stop) of each run of neighbouring examples, in the order they are read.
        permutation: int64 `[size]`: position within the block -> index within the concatenated runs; None for identity.
    """

    first_position: int
    runs: np.ndarray
    permutation: np.ndarray | None

    @property
    def size(self) -> int:
        """Number of examples."""
        return int((self.runs[:, 1] - self.runs[:, 0]).sum())

    def examples(self) -> np.ndarray:
        """Example numbers in block order, int64 `[size]`."""
        lengths = self.runs[:, 1] - self.runs[:, 0]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        examples = np.repeat(self.runs[:, 0], lengths) + within
        return examples if self.permutation is None else examples[self.permutation]


@dataclass(frozen=True)
class ShuffledOrder:
    """Position -> example for one epoch, worked out block by block in O(block + n / run) memory."""

    num_examples: int
    seed: int
    epoch: int
    block: int
    run: int
    shuffle: bool
    _last: dict[int, Block] = field(default_factory=dict, repr=False, compare=False)  # two: a batch may lie in both
    _last_examples: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def _runs(self) -> np.ndarray:
        starts = np.arange(0, self.num_examples, self.run, dtype=np.int64)
        runs = np.stack([starts, np.minimum(starts + self.run, self.num_examples)], axis=1)
        return runs[_permutation(len(runs), self.seed, self.epoch, stream=0)] if self.shuffle else runs

    @cached_property
    def _block_starts(self) -> np.ndarray:
        lengths = self._runs[:, 1] - self._runs[:, 0]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        return np.append(ends[: -1 : self._runs_per_block], ends[-1])

    @property
    def _runs_per_block(self) -> int:
        return max(1, self.block // self.run)

    @property
    def num_blocks(self) -> int:
        """Number of blocks."""
        return len(self._block_starts) - 1

    def block_of(self, position: int) -> Block:
        """The block that holds `position`; the two found last are kept."""
        number = int(np.searchsorted(self._block_starts, position, side="right")) - 1
        if number not in self._last:
            runs = self._runs_of(number)
            first = int(self._block_starts[number])
            size = int(self._block_starts[number + 1]) - first
            permutation = _permutation(size, self.seed, self.epoch, stream=1 + number) if self.shuffle else None
            while len(self._last) > 1:
                del self._last[next(iter(self._last))]
            self._last[number] = Block(first, runs, permutation)
        return self._last[number]

    def runs_after(self, block: Block) -> np.ndarray:
        """The runs of the next block, int64 `[r, 2]`; none after the last one."""
        return self._runs_of(int(np.searchsorted(self._block_starts, block.first_position, side="right")))

    def _runs_of(self, number: int) -> np.ndarray:
        return self._runs[number * self._runs_per_block : (number + 1) * self._runs_per_block]

    def examples(self, positions: range) -> np.ndarray:
        """Example numbers at `positions`, int64 `[len(positions)]`."""
        pieces = []
        start = positions.start
        while start < positions.stop:
            block = self.block_of(start)
            if block.first_position not in self._last_examples:
                self._last_examples.clear()
                self._last_examples[block.first_position] = block.examples()
            examples = self._last_examples[block.first_position]
            stop = min(positions.stop, block.first_position + len(examples))
            pieces.append(examples[start - block.first_position : stop - block.first_position])
            start = stop
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)


def epoch_order(
    num_examples: int,
    *,
    seed: int,
    epoch: int,
    block: int = SHUFFLE_BLOCK,
    run: int = SHUFFLE_RUN,
    shuffle: bool = True,
) -> ShuffledOrder:
    """The order of one epoch: a function of (num_examples, seed, epoch) and the two sizes, and of nothing else.

    Runs of `run` neighbouring examples are put in random order; the examples of each `block` of runs are shuffled
    together. Up to `block` examples are therefore shuffled whole. Random bits are Philox's raw output, which NumPy
    keeps stable between releases, in ascending order, equal ones as they came.

    Args:
        num_examples: examples in the epoch.
        seed: 0 .. 2**64 - 1.
        epoch: counted from 0.
        block: examples shuffled together.
        run: neighbouring examples read together.
        shuffle: False gives the order of the data.
    """
    return ShuffledOrder(num_examples, seed, epoch, block, run, shuffle)


def _permutation(size: int, seed: int, epoch: int, *, stream: int) -> np.ndarray:
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=np.array([0, 0, 0, stream], np.uint64))
    return stable_order(bits.random_raw(size))


def stable_order(keys: np.ndarray) -> np.ndarray:
    """What `np.argsort(keys, kind="stable")` gives, int64 `[n]`: five times as fast where few or no keys are equal."""
    order = np.argsort(keys)  # this kind has vector instructions, but does not say how it orders equal keys
    ascending = keys[order]
    return order if np.all(ascending[1:] != ascending[:-1]) else np.argsort(keys, kind="stable")


def count_reads(plan: EpochPlan, order: ShuffledOrder) -> np.ndarray:
    """How often each example is read in the epoch, by walking every step of every replica: int64 `[num_examples]`."""
    counts = np.zeros(plan.num_examples, np.int64)
    for step in range(plan.num_steps):
        for replica in range(plan.num_replicas):
            np.add.at(counts, order.examples(plan.positions(step, replica)), 1)
    return counts
