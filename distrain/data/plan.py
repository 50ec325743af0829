"""Which replica trains on which positions of an epoch: arithmetic on the numbers of examples, replicas and batch size.

Decides: the stride of batches per replica, and the steps of an epoch. Never: touches a file, a device or the
environment.

    >>> plan = EpochPlan(num_examples=10, num_replicas=2, batch_size=3)
    >>> plan.num_steps, plan.positions(0, 1), plan.positions(1, 1)
    (2, range(3, 6), range(9, 10))

An *example* is a row of the data. A *position* counts the examples of an epoch in the order of training. Replica r of N
gets the batches r, r + N, r + 2N, ... of the epoch. The N batches of one step therefore cover consecutive positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class EpochPlan:
    """The steps of one epoch, or of the rest of an epoch after a resume.

    Attributes:
        num_examples: examples in the epoch, n.
        num_replicas: copies of the model, N.
        batch_size: examples per replica and step, B.
        first_position: position of the first example that is still to be read; batches are cut from here on.
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
        """Batches of all replicas: ceil((n - first_position) / B)."""
        return -(-(self.num_examples - self.first_position) // self.batch_size)

    @property
    def num_steps(self) -> int:
        """Steps of every replica: ceil(num_batches / N)."""
        return -(-self.num_batches // self.num_replicas)

    def positions(self, step: int, replica: int) -> range:
        """Positions of `replica`'s batch in `step`; the batch may be short or empty in the last step."""
        assert 0 <= replica < self.num_replicas
        assert 0 <= step < self.num_steps
        start = self.first_position + (step * self.num_replicas + replica) * self.batch_size
        return range(min(start, self.num_examples), min(start + self.batch_size, self.num_examples))

    def positions_between(self, start: int, stop: int, replicas: range) -> np.ndarray:
        """Ascending positions in `start` .. `stop - 1` that belong to batches of `replicas`, int64."""
        start = max(start, self.first_position)
        steps = np.arange(
            (start - self.first_position) // self.global_batch_size,
            -(-(stop - self.first_position) // self.global_batch_size),
        )
        firsts = self.first_position + (steps * self.num_replicas + replicas.start) * self.batch_size
        positions = (firsts[:, None] + np.arange(len(replicas) * self.batch_size)).ravel()
        return positions[(start <= positions) & (positions < stop)]

    def global_positions(self, step: int) -> range:
        """Positions of the batches of all replicas in `step`."""
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
