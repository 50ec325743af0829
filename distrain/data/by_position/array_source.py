"""Arrays as a source by position, so that a function may change each of their examples.

Decides: what an example of arrays is. Never: changes an example.

    >>> source = ArraySource(np.array([[1.0], [2.0]]), [0, 1])
    >>> len(source), source.take(np.array([1]))
    (2, (array([[2.]]), array([1])))
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from distrain.data.array_checks import checked_arrays, num_rows_of
from distrain.data.nests import leaves, map_nest
from distrain.errors import ConfigurationError


class ArraySource:
    """Examples (x, y) or (x, y, weight) of nests of arrays.

    Args:
        features: arrays `[n, ...]`.
        labels: arrays `[n, ...]`, or None.
        weights: weights as Keras takes them, or None.

    Raises:
        ConfigurationError: arrays do not fit together, or are sparse.
    """

    returns_arrays = True

    def __init__(self, features: Any, labels: Any = None, weights: Any = None) -> None:
        parts = features, labels, weights = checked_arrays(features, labels, weights)
        if any(scipy.sparse.issparse(value) for _, value in leaves(features)):
            raise ConfigurationError("map= takes dense arrays: a row of a sparse matrix is no array.")
        self._num_examples = num_rows_of(features, "features")
        self._parts = parts if leaves(weights) else parts[:2] if leaves(labels) else parts[:1]

    @property
    def is_in_memory(self) -> bool:
        """Whether an array is no file that another process may map as well."""
        return not all(isinstance(value, np.memmap) for part in self._parts for _, value in leaves(part))

    def __len__(self) -> int:
        return self._num_examples

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        """Return one example."""
        return self._rows(number)

    def take(self, indices: np.ndarray) -> tuple[Any, ...]:
        """Return several examples as arrays."""
        return self._rows(indices)

    def _rows(self, rows: Any) -> tuple[Any, ...]:
        return tuple(map_nest(lambda value, name: value[rows], part) for part in self._parts)
