"""This rank's stride of batches, as a Keras data set.

Decides: which examples `fit` and `evaluate` read on this rank, and with which weights. Never: when.

    batches = RankBatches(x, y, batch_size=64, shuffle=True, seed=1)
    model.fit(batches, shuffle=False, epochs=3)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import scipy.sparse

from distrain.data.array_checks import array_nest
from distrain.data.nests import is_nest
from distrain.data.plan import EpochPlan
from distrain.data.shuffle import epoch_order
from distrain.data.sources import array_examples
from distrain.errors import ConfigurationError
from distrain.horovod import init


class RankBatches(keras.utils.PyDataset):
    """This rank's stride of batches: rank r of N takes the batches r, r + N, r + 2N, ... of each epoch's order.

    In training every rank has the same number of steps. Weights make the average of the ranks' losses the mean over the
    joint batch. With G examples in the step and b on this rank, each example weighs N * b / G times its own weight:
    Keras divides by b. A rank without examples in the last step reads one example with weight 0.

    In evaluation (`training=False`) a rank reads only its own batches, in order and without these weights.

    Pass `shuffle=False` to `fit`, whose shuffling would order the steps of each rank differently. Keras refuses
    `class_weight` together with weights; multiply it into `weights`.

    Args:
        x: `[n, ...]` array, `np.memmap` or SciPy sparse matrix (batches are made dense), or a dict of these by input.
        y: `[n, ...]` labels.
        batch_size: examples per rank and step.
        weights: `[n]` weights of the examples, or None.
        shuffle: use an order that depends on seed and epoch alone, instead of the order of the data.
        seed: seed of the order.
        initial_epoch: first epoch, as in `fit`.
        training: False for `validation_data` and `evaluate`.

    Raises:
        ConfigurationError: a value is out of range, shapes do not match, or a rank has no batch to evaluate.
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
        super().__init__()  # one worker asks for batches in order
        if batch_size < 1:
            raise ConfigurationError(f"batch_size is {batch_size}, but it must be at least 1.")
        array_examples(x, y, weights)  # refuses unsupported features and labels
        if is_nest(array_nest(y)) or (not isinstance(x, Mapping) and is_nest(array_nest(x))) or np.ndim(weights) > 1:
            raise ConfigurationError("RankBatches takes x as an array or a dict, y as an array, and weights [n].")
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
        """Return the batch (x, y, weights), or (x, y) in evaluation without weights."""
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
        factors = np.full(len(chosen), self._world.size * num_rows / num_all, np.float32)
        return (*batch, factors if own is None else factors * own)

    def rows(self, step: int) -> tuple[int, int]:
        """Return the number of examples of this rank and of all ranks in a step."""
        return len(self._plan.positions(step, self._world.rank)), len(self._plan.global_positions(step))

    def on_epoch_begin(self) -> None:
        """Use the order of the epoch that begins."""
        self._epoch += 1
        self._next_step = 0
        self._order = self._order_of(self._epoch)

    def on_epoch_end(self) -> None:
        """Allow any step until the next epoch begins."""
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
