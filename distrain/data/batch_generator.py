"""One rank's batches, for a user's own training loop.

Decides: what a user's loop is given. Never: how a user trains.

    for x, y in BatchGenerator(x, y, num_features, batch_size, rank, size).epoch():
        ...
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse

from distrain.data.plan import EpochPlan, steps_per_epoch
from distrain.data.shuffle import epoch_order
from distrain.data.sources import array_examples
from distrain.errors import ConfigurationError


class BatchGenerator:
    """One rank's batches, for a user's own training loop.

    Rank r of `size` gets the batches r, r + size, r + 2 * size, ... of the epoch. Every rank gets the same number of
    batches; where there are fewer left than ranks, the last one is empty (`[0, num_features]`), so that ranks that
    meet in a collective at each step do not wait for ever.

    Args:
        x: `[n, num_features]` array, `np.memmap` or SciPy sparse matrix; sparse batches are made dense.
        y: `[n, ...]` labels.
        num_features: width of `x`.
        batch_size: examples per batch; the last one is shorter.
        rank: this replica, 0 .. size - 1.
        size: number of replicas.
        shuffle: take the epoch's order instead of the order of the data.
        seed: of that order.

    Raises:
        ConfigurationError: a value is out of range, or the shapes do not fit.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        num_features: int,
        batch_size: int,
        rank: int = 0,
        size: int = 1,
        *,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"batch_size is {batch_size}, but it must be at least 1.")
        if not 0 <= rank < size:
            raise ConfigurationError(f"rank is {rank}, but it must be in 0..{size - 1}, as size is {size}.")
        if len(x.shape) < 2 or x.shape[1] != num_features:
            raise ConfigurationError(f"x has shape {x.shape}, but num_features is {num_features}.")
        array_examples(x, y)  # refuses what cannot be fed
        self._x = x.tocsr() if scipy.sparse.issparse(x) else x
        self._y = np.asanyarray(y)
        self._plan = EpochPlan(x.shape[0], size, batch_size)
        self._rank = rank
        self._shuffle = shuffle
        self._seed = seed

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch, the same on every rank: ceil(ceil(n / batch_size) / size)."""
        return self._plan.num_steps

    def epoch(self, epoch: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield this rank's `steps_per_epoch` batches (x, y) of one epoch."""
        order = epoch_order(self._plan.num_examples, seed=self._seed, epoch=epoch, shuffle=self._shuffle)
        for step in range(self._plan.num_steps):
            chosen = order.examples(self._plan.positions(step, self._rank))
            x = self._x[chosen]
            yield (x.toarray() if scipy.sparse.issparse(x) else np.asarray(x)), np.asarray(self._y[chosen])

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the batches of epoch 0, 1, 2, ... without end; `steps_per_epoch` of them make an epoch."""
        epoch = 0
        while True:
            yield from self.epoch(epoch)
            epoch += 1

    def __len__(self) -> int:
        return self.steps_per_epoch


def validation_steps(num_examples: int, batch_size: int, size: int = 1) -> int:
    """Steps that cover `num_examples` of validation once over `size` ranks; the same rule as for training."""
    return steps_per_epoch(num_examples, batch_size, size)
