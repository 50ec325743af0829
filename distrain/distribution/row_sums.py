"""Rows of a matrix, added up at their indices.

Decides: the order of the additions. Never: loads TensorFlow, so that predictions for a run load none either.

    >>> sums = np.empty((3, 2))
    >>> add_rows(np.array([2, 0, 2]), np.ones((3, 2)), sums)
    >>> sums.tolist()
    [[1.0, 1.0], [0.0, 0.0], [2.0, 2.0]]
"""

from __future__ import annotations

import numpy as np

from distrain.jit import compiled


@compiled
def add_rows(indices: np.ndarray, values: np.ndarray, sums: np.ndarray) -> None:
    """Set `sums` to zero, then add each row of `values` to the row of `sums` at its index.

    Args:
        indices: int32 or int64 `[m]`, below n.
        values: `[m, width]`.
        sums: `[n, width]`.
    """
    sums[:] = 0
    for number in range(len(indices)):
        own, total = values[number], sums[indices[number]]
        for column in range(len(own)):
            total[column] += own[column]
