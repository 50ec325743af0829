"""Which replica reads which examples when: pure arithmetic on (n, N, B, seed, epoch).

Decides: the stride of batches per replica, the steps of an epoch, the shuffled order. Never: touches a file, a device
or the environment.

    >>> from distrain.data.plan import EpochPlan, epoch_order
    >>> plan = EpochPlan(num_examples=10, num_replicas=2, batch_size=3)
    >>> plan.num_steps, plan.positions(0, 1), plan.positions(1, 1)
    (2, range(3, 6), range(9, 10))
    >>> sorted(epoch_order(10, seed=1, epoch=0).examples(range(10)).tolist()) == list(range(10))
    True

Words: an *example* is a row of the data; a *position* is a place in the epoch's order; *replica* r of N gets the
batches r, r + N, r + 2N, ... of the epoch, so step s of all replicas together is N batches in a row. The order depends
on (seed, epoch) alone, never on N or B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

SHUFFLE_BLOCK = 65_536  # examples shuffled together; about 30 MB of n-gram rows
SHUFFLE_RUN = 256  # neighbours that are read together, so that a block is a few hundred sequential reads


@dataclass(frozen=True)
class EpochPlan:
    """The steps of one epoch, or of what is left of it.

    Attributes:
        num_examples: examples in the epoch, n.
        num_replicas: copies of the model, N.
        batch_size: examples per replica and step, B.
        first_position: where the epoch goes on after a resume; the stride starts here.
    """

    num_examples: int
    num_replicas: int
    batch_size: int
    first_position: int = 0

    def __post_init__(self) -> None:
        if self.num_examples < 0 or self.num_replicas < 1 or self.batch_size < 1:
            raise ValueError(f"{self} needs num_examples >= 0, num_replicas >= 1 and batch_size >= 1")
        if not 0 <= self.first_position <= self.num_examples:
            raise ValueError(f"first_position {self.first_position} is outside 0..{self.num_examples}")

    @property
    def global_batch_size(self) -> int:
        """Examples per step over all replicas, G = N * B."""
        return self.num_replicas * self.batch_size

    @property
    def num_batches(self) -> int:
        """Batches of all replicas together: ceil(remaining / B)."""
        return -(-(self.num_examples - self.first_position) // self.batch_size)

    @property
    def num_steps(self) -> int:
        """Steps, the same number on every replica: ceil(num_batches / N)."""
        return -(-self.num_batches // self.num_replicas)

    def positions(self, step: int, replica: int) -> range:
        """Positions of `replica`'s batch in `step`: short or empty at the end of the epoch."""
        assert 0 <= replica < self.num_replicas
        assert 0 <= step < self.num_steps
        start = self.first_position + (step * self.num_replicas + replica) * self.batch_size
        return range(min(start, self.num_examples), min(start + self.batch_size, self.num_examples))

    def positions_between(self, start: int, stop: int, replicas: range) -> np.ndarray:
        """Positions from `start` up to `stop` of all batches of these replicas, in the order of the steps: int64."""
        start = max(start, self.first_position)
        steps = np.arange(
            (start - self.first_position) // self.global_batch_size,
            -(-(stop - self.first_position) // self.global_batch_size),
        )
        firsts = self.first_position + (steps * self.num_replicas + replicas.start) * self.batch_size
        positions = (firsts[:, None] + np.arange(len(replicas) * self.batch_size)).ravel()
        return positions[(start <= positions) & (positions < stop)]

    def global_positions(self, step: int) -> range:
        """Positions of all replicas together in `step`."""
        assert 0 <= step < self.num_steps
        start = self.first_position + step * self.global_batch_size
        return range(start, min(start + self.global_batch_size, self.num_examples))


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


def steps_per_epoch(num_examples: int, batch_size: int, size: int) -> int:
    """Steps that each of `size` replicas takes per epoch: ceil(ceil(num_examples / batch_size) / size)."""
    return EpochPlan(num_examples, size, batch_size).num_steps


def examples_per_replica(plan: EpochPlan) -> Sequence[int]:
    """Examples that each replica reads in the epoch, in closed form: `[num_replicas]`."""
    whole, rest = divmod(plan.num_examples - plan.first_position, plan.global_batch_size)
    return [
        whole * plan.batch_size + min(max(rest - replica * plan.batch_size, 0), plan.batch_size)
        for replica in range(plan.num_replicas)
    ]
