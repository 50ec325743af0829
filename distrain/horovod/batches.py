"""This rank's stride of batches, as a Keras data set.

Decides: which examples `fit` and `evaluate` read on this rank. Never: when, or how examples are weighed.

    batches = RankBatches(x, y, batch_size=64, shuffle=True, seed=1)
    model.fit(batches, shuffle=False, epochs=3)
    fitted_batches().rows(step)                      # during `fit`: (examples of this rank, examples of all ranks)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from distrain.data.examples import CsrRows
from distrain.data.nests import is_nest, map_nest
from distrain.data.plan import EpochPlan
from distrain.data.sources import array_examples
from distrain.errors import ConfigurationError
from distrain.horovod import init

_fitted: list[RankBatches] = []  # the training batches whose epoch began last


def fitted_batches() -> RankBatches | None:
    """Return the batches that `fit` reads; None if `fit` reads other data."""
    return _fitted[0] if _fitted else None


def forget_fitted_batches() -> None:
    """Forget the batches of an earlier `fit`."""
    _fitted.clear()


class RankBatches(keras.utils.PyDataset):
    """This rank's stride of batches: rank r of N takes the batches r, r + N, r + 2N, ... of each epoch's order.

    In training every rank has the same number of steps. In the last step some ranks may have fewer examples, or none. A
    rank without examples reads one example, which counts nothing. `DistributedOptimizer` weighs each rank's gradient by
    the number of its examples. So `weights` and `class_weight` act as in Keras.

    In evaluation (`training=False`) a rank reads only its own batches, in order.

    Pass `shuffle=False` to `fit`, whose shuffling would order the steps of each rank differently.

    Args:
        x: `[n, ...]` array, `np.memmap` or SciPy sparse matrix (batches are made dense), or a list, tuple or dict of
            these, as the model takes its inputs.
        y: `[n, ...]` labels, or a list, tuple or dict of these, as the model gives its outputs; None without labels.
        batch_size: examples per rank and step.
        weights: `[n]` or `[n, ...]` weights as Keras takes `sample_weight`, for each label alike; or None.
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
        self._examples = array_examples(x, y, weights)
        self._world = init()
        self._plan = EpochPlan(self._examples.num_examples, self._world.size, batch_size)
        self._shuffle, self._seed, self._training = shuffle and training, seed, training
        self._epoch = initial_epoch - 1
        self._next_step: int | None = None
        self._order = self._order_of(initial_epoch)
        if len(self) == 0:
            raise ConfigurationError(
                f"{self._plan.num_examples} examples in batches of {batch_size} leave rank {self._world.rank} of "
                f"{self._world.size} nothing to evaluate. Use a smaller batch_size."
            )

    def __len__(self) -> int:
        if self._training:
            return self._plan.num_steps
        return -(-(self._plan.num_batches - self._world.rank) // self._world.size)

    def __getitem__(self, step: int) -> tuple[Any, ...]:
        """Return the batch (x, y, weights), without the weights or labels that the data lacks."""
        if self._next_step is not None and step not in (0, self._next_step):
            raise ConfigurationError(
                f"Step {step} was asked for when step {self._next_step} is next: the ranks would not train on the same "
                "joint batch. Call fit(..., shuffle=False), without steps_per_epoch."
            )
        if self._next_step is not None:
            self._next_step = step + 1
        positions = self._plan.positions(step, self._world.rank)
        chosen = self._order.examples(positions or self._plan.global_positions(step)[:1])
        read = self._examples.load(np.stack([chosen, chosen + 1], axis=1), np.arange(len(chosen)))
        features, labels, weights = map(_without_lists, read(0, len(chosen)))
        num_columns = self._examples.num_columns
        features = map_nest(lambda value, name: _dense(value, len(chosen), num_columns.get(name)), features)
        if weights is not None:
            return features, labels, weights
        return (features,) if labels is None else (features, labels)

    def rows(self, step: int, rank: int | None = None) -> tuple[int, int]:
        """Return the number of examples of a rank, by default this rank, and of all ranks in a step."""
        positions = self._plan.positions(step, self._world.rank if rank is None else rank)
        return len(positions), len(self._plan.global_positions(step))

    def on_epoch_begin(self) -> None:
        """Use the order of the epoch that begins."""
        self._epoch += 1
        self._next_step = 0
        self._order = self._order_of(self._epoch)
        if self._training:
            _fitted[:] = [self]

    def on_epoch_end(self) -> None:
        """Allow any step until the next epoch begins."""
        self._next_step = None

    def _order_of(self, epoch: int) -> Any:
        return self._examples.order(seed=self._seed, epoch=epoch, shuffle=self._shuffle)


def _without_lists(nest: Any) -> Any:
    """Return the nest with tuples in place of lists, which `tf.data` takes for arrays, and None in place of `()`."""
    if not is_nest(nest):
        return nest
    if isinstance(nest, Mapping):
        return {key: _without_lists(value) for key, value in nest.items()}
    return tuple(map(_without_lists, nest)) or None


def _dense(value: Any, num_rows: int, num_columns: int | None) -> Any:
    if not isinstance(value, CsrRows):
        return value
    matrix = np.zeros((num_rows, num_columns or 0), value.values.dtype)
    matrix[value.row_ids, value.columns] = value.values
    return matrix
