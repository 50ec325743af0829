"""This rank's stride of batches, as a Keras data set.

Decides: what `fit` and `evaluate` are fed on this rank, and with which weights. Never: when.

    batches = RankBatches(x, y, batch_size=64, shuffle=True, seed=1)
    model.fit(batches, shuffle=False, epochs=3)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import scipy.sparse

from distrain.data.plan import EpochPlan
from distrain.data.shuffle import epoch_order
from distrain.data.sources import array_examples
from distrain.errors import ConfigurationError
from distrain.horovod import init


class RankBatches(keras.utils.PyDataset):
    """This rank's stride of batches: rank r of N takes the batches r, r + N, r + 2N, ... of each epoch's order.

    For training every rank has the same number of steps, and the weights of a step are such that the average of the
    ranks' losses is the mean over the joint batch: of G examples in the step, b on this rank, each weighs N * b / G
    (times its own weight), as Keras divides by b. A rank without examples in the last step is fed one with weight 0.

    For evaluation (`training=False`) there are only this rank's own batches, in order and without such weights.

    Give `fit` this object and `shuffle=False`: its shuffling would order the steps of each rank differently. Keras'
    `class_weight` is refused beside weights; put it into `weights`.

    Args:
        x: `[n, ...]` array, `np.memmap` or SciPy sparse matrix (batches are made dense), or a dict of these by input.
        y: `[n, ...]` labels.
        batch_size: examples per rank and step.
        weights: `[n]` weights of the examples, or None.
        shuffle: take the epoch's order, which depends on seed and epoch alone, instead of the order of the data.
        seed: of that order.
        initial_epoch: as in `fit`: which epoch's order is taken first.
        training: False for `validation_data` and `evaluate`.

    Raises:
        ConfigurationError: a value is out of range, shapes do not fit, or a rank would have no batch to evaluate.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        batch_size: int,
        *,
        weights: Any = None,
        shuffle: bool = False,
        seed: int = 0,
        initial_epoch: int = 0,
        training: bool = True,
    ) -> None:
        super().__init__()  # with one worker: batches are asked for in order
        if batch_size < 1:
            raise ConfigurationError(f"batch_size is {batch_size}, but it must be at least 1.")
        array_examples(x, y, weights)  # refuses what cannot be fed
        self._x = _indexable(x)
        self._y = np.asanyarray(y)
        self._weights = None if weights is None else np.asarray(weights, np.float32)
        self._world = init()
        self._plan = EpochPlan(len(self._y), self._world.size, batch_size)
        self._shuffle, self._seed, self._training = shuffle and training, seed, training
        self._epoch = initial_epoch - 1
        self._next_step: int | None = None
        self._order = self._order_of(initial_epoch)
        if len(self) == 0:
            raise ConfigurationError(
                f"{len(self._y)} examples in batches of {batch_size} leave rank {self._world.rank} of "
                f"{self._world.size} nothing to evaluate. Use a smaller batch_size."
            )

    def __len__(self) -> int:
        if self._training:
            return self._plan.num_steps
        return -(-(self._plan.num_batches - self._world.rank) // self._world.size)

    def __getitem__(self, step: int) -> tuple[Any, ...]:
        """The batch (x, y, weights), or (x, y) for evaluation without weights."""
        if self._next_step is not None and step not in (0, self._next_step):
            raise ConfigurationError(
                f"Step {step} was asked for when step {self._next_step} is next: the ranks would not train on the same "
                "joint batch. Call fit(..., shuffle=False), without steps_per_epoch."
            )
        if self._next_step is not None:
            self._next_step = step + 1
        positions = self._plan.positions(step, self._world.rank)
        chosen = self._order.examples(positions or self._plan.global_positions(step)[:1])
        batch = (_rows(self._x, chosen), np.asarray(self._y[chosen]))
        own = None if self._weights is None else self._weights[chosen]
        if not self._training:
            return batch if own is None else (*batch, own)
        num_rows, num_all = self.rows(step)
        share = np.full(len(chosen), self._world.size * num_rows / num_all, np.float32)
        return (*batch, share if own is None else share * own)

    def rows(self, step: int) -> tuple[int, int]:
        """Examples of this rank and of all ranks in a step; where this rank has none, one is fed with weight 0."""
        return len(self._plan.positions(step, self._world.rank)), len(self._plan.global_positions(step))

    def on_epoch_begin(self) -> None:
        """Keras begins an epoch: take its order."""
        self._epoch += 1
        self._next_step = 0
        self._order = self._order_of(self._epoch)

    def on_epoch_end(self) -> None:
        """Keras ends an epoch: any batch may be looked at again."""
        self._next_step = None

    def _order_of(self, epoch: int) -> Any:
        return epoch_order(len(self._y), seed=self._seed, epoch=epoch, shuffle=self._shuffle)


def _indexable(x: Any) -> Any:
    if isinstance(x, Mapping):
        return {name: _indexable(value) for name, value in x.items()}
    return x.tocsr() if scipy.sparse.issparse(x) else np.asanyarray(x)


def _rows(x: Any, chosen: np.ndarray) -> Any:
    if isinstance(x, dict):
        return {name: _rows(value, chosen) for name, value in x.items()}
    return x[chosen].toarray() if scipy.sparse.issparse(x) else np.asarray(x[chosen])
