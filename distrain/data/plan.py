"""Which replica reads which positions of an epoch: pure arithmetic on (n, N, B).

Decides: the stride of batches per replica, and the steps of an epoch. Never: touches a file, a device or the
environment.

    >>> plan = EpochPlan(num_examples=10, num_replicas=2, batch_size=3)
    >>> plan.num_steps, plan.positions(0, 1), plan.positions(1, 1)
    (2, range(3, 6), range(9, 10))

Words: an *example* is a row of the data; a *position* is a place in the epoch's order; *replica* r of N gets the
batches r, r + N, r + 2N, ... of the epoch, so step s of all replicas together is N batches in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
