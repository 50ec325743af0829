"""A data set of Keras that gives batches by number, as a source by position.

Decides: which example is in which batch. Never: keeps more than one batch in memory.

    source = BatchSource(dataset, "train")         # a keras.utils.PyDataset
    source.read(0, 100)                            # the batches that hold these examples, each read once

All batches but the last must be equally large. Keras' own options for workers are not used.
"""

from __future__ import annotations

import sys
from typing import Any

from distrain.data.array_checks import array_nest
from distrain.data.nests import concatenated, leaves, map_nest
from distrain.errors import ConfigurationError, DataError, DistrainError, cause


class BatchSource:
    """Examples of a `keras.utils.PyDataset`.

    Args:
        dataset: has `num_batches` (or a length) and returns a batch (x,), (x, y) or (x, y, weights) for a number.
        name: the data set's name in messages.

    Raises:
        ConfigurationError: the data set has no batches, or no end.
    """

    returns_arrays = True

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset, self._name = dataset, name
        self._num_batches = dataset.num_batches
        if not self._num_batches:
            raise ConfigurationError(f"{name} has {self._num_batches} batches; give a number of at least 1.")
        self.span_size = _rows(self._batch(0))
        last = _rows(self._batch(self._num_batches - 1))
        self._num_examples = (self._num_batches - 1) * self.span_size + last

    def __len__(self) -> int:
        return self._num_examples

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        """Return one example."""
        return tuple(map_nest(lambda value, name: value[0], part) for part in self.read(number, number + 1))

    def read(self, start: int, stop: int) -> tuple[Any, ...]:
        """Return the examples start .. stop - 1 as arrays."""
        pieces = []
        for number in range(start // self.span_size, (stop - 1) // self.span_size + 1):
            first = number * self.span_size
            batch = self._checked(number, self._batch(number))
            rows = slice(max(start - first, 0), stop - first)
            pieces.append(tuple(_rows_of(part, rows) for part in batch))
        found: tuple[Any, ...] = concatenated(pieces)
        return found

    def _batch(self, number: int) -> tuple[Any, ...]:
        try:
            batch = self._dataset[number]
        except DistrainError:
            raise
        except Exception as error:
            raise DataError(f"{self._name} cannot read batch {number}: {cause(error)}.") from error
        batch = batch if isinstance(batch, tuple) else (batch,)
        found = tuple(array_nest(part) for part in batch)
        if not _arrays(found) or any(not value.ndim for value in _arrays(found)):
            raise DataError(f"Batch {number} of {self._name} is not made of arrays with a row for each example.")
        return found

    def _checked(self, number: int, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        wanted = min(self.span_size, self._num_examples - number * self.span_size)
        if _rows(batch) != wanted:
            raise DataError(
                f"Batch {number} of {self._name} has {_rows(batch)} examples, but all batches before the last must "
                f"have {self.span_size}, as batch 0 has."
            )
        return batch


def _rows_of(part: Any, rows: slice) -> Any:
    return map_nest(lambda value, name: value[rows], part)


def _arrays(parts: tuple[Any, ...]) -> list[Any]:
    return [value for _, value in leaves(parts)]


def _rows(batch: tuple[Any, ...]) -> int:
    return len(_arrays(batch)[0])


def is_py_dataset(data: Any) -> bool:
    """Whether data is a `keras.utils.PyDataset`."""
    keras = sys.modules.get("keras")  # whoever made a data set of Keras has imported Keras
    return keras is not None and isinstance(data, keras.utils.PyDataset)


def py_dataset_source(dataset: Any, name: str) -> BatchSource:
    """Return the examples of a `keras.utils.PyDataset`.

    Raises:
        ConfigurationError: the data set changes between epochs, or has no batches.
    """
    for hook in ("on_epoch_begin", "on_epoch_end"):
        if getattr(type(dataset), hook) is not getattr(sys.modules["keras"].utils.PyDataset, hook):
            raise ConfigurationError(
                f"{name} changes in {type(dataset).__name__}.{hook}, which another number of ranks would not repeat: "
                "leave the method out, because distrain shuffles by itself, and draw random numbers in map=."
            )
    return BatchSource(dataset, name)
