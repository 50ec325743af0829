"""The public `BatchGenerator`, which yields one rank's batches to a user's own training loop.

Decides: which batches a rank gets, and their form. Never: how the user trains.

    >>> x, y = np.arange(10.0).reshape(5, 2), np.arange(5)
    >>> [labels.tolist() for _, labels in BatchGenerator(x, y, num_features=2, batch_size=2, rank=1, size=2).epoch()]
    [[2, 3], []]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse

from distrain.data.array_checks import array_nest
from distrain.data.nests import map_nest
from distrain.data.plan import EpochPlan, steps_per_epoch
from distrain.data.sources import array_examples
from distrain.errors import ConfigurationError


class BatchGenerator:
    """Yields one rank's batches to a user's own training loop.

    Rank r of `size` gets the batches r, r + size, r + 2 * size, ... of the epoch. Every rank gets the same number of
    batches, so no rank waits forever in a collective. The last batch of a rank may be empty, `[0, num_features]`.

    Args:
        x: `[n, num_features]` array, `np.memmap` or SciPy sparse matrix; sparse batches are made dense.
        y: labels, an array `[n, ...]` or a nest of arrays; None without labels, which then are `()`.
        num_features: width of `x`.
        batch_size: examples per batch; the last batch of an epoch may be shorter.
        rank: number of this replica, 0 .. size - 1.
        size: number of replicas.
        shuffle: True shuffles each epoch; False keeps the order of the data.
        seed: seed of the shuffled order.

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
        self._order_of = array_examples(x, y).order  # raises for unsupported types and lengths
        self._x = x.tocsr() if scipy.sparse.issparse(x) else x
        self._y = array_nest(y)
        self._plan = EpochPlan(x.shape[0], size, batch_size)
        self._rank = rank
        self._shuffle = shuffle
        self._seed = seed

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch, the same on every rank: ceil(ceil(n / batch_size) / size)."""
        return self._plan.num_steps

    def epoch(self, epoch: int = 0) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield this rank's `steps_per_epoch` batches (x, y) of one epoch."""
        order = self._order_of(seed=self._seed, epoch=epoch, shuffle=self._shuffle)
        for step in range(self._plan.num_steps):
            examples = order.examples(self._plan.positions(step, self._rank))
            x = self._x[examples]
            yield (x.toarray() if scipy.sparse.issparse(x) else np.asarray(x)), self._labels(examples)

    def _labels(self, examples: np.ndarray) -> Any:
        return map_nest(lambda labels, name: np.asarray(labels[examples]), self._y)

    def __iter__(self) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield the batches of epochs 0, 1, 2, ... without end, `steps_per_epoch` batches per epoch."""
        epoch = 0
        while True:
            yield from self.epoch(epoch)
            epoch += 1

    def __len__(self) -> int:
        return self.steps_per_epoch


def validation_steps(num_examples: int, batch_size: int, size: int = 1) -> int:
    """Steps in which `size` ranks evaluate each of `num_examples` examples once, by the rule of `steps_per_epoch`."""
    return steps_per_epoch(num_examples, batch_size, size)
