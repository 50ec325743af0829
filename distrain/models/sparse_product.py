"""The product of sparse rows and a dense matrix, and its gradient, where a step computes them.

Decides: how a device multiplies sparse rows. Never: what is done with the product.

    product = sparse_product(rows, kernel, on_gpu=False)       # rows: SparseRows; kernel: [num_columns, units]

On a CPU two compiled kernels run over the entries, called from the graph. TensorFlow's own ways, `gather` and
`segment_sum` or a product of a `tf.SparseTensor`, write one row of the matrix per entry to memory in between, and took
about twice as long for the whole step (`benchmarks/RESULTS.md`). On a GPU the entries travel and are made a dense
matrix there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from distrain.aligned_memory import aligned_empty
from distrain.batch import SparseRows
from distrain.jit import compiled


def sparse_product(rows: SparseRows, kernel: Any, *, on_gpu: bool) -> Any:
    """The matrix product of sparse rows and `kernel`.

    Args:
        rows: `[b, num_columns]`, as tensors; entries that share a place add up.
        kernel: float `[num_columns, units]`.
        on_gpu: whether the step runs on a GPU.

    Returns:
        `[b, units]`, of the kernel's dtype.
    """
    rows = rows._replace(values=tf.cast(rows.values, kernel.dtype))
    return _product_on_gpu(rows, kernel) if on_gpu else _product_on_cpu(rows, kernel)


def _product_on_gpu(rows: SparseRows, kernel: Any) -> Any:
    places = tf.stack([rows.row_ids, rows.columns], axis=1)
    dense = tf.scatter_nd(places, rows.values, tf.stack([rows.row_ids[-1] + 1, tf.shape(kernel)[0]]))
    return tf.matmul(dense, kernel)


def _product_on_cpu(rows: SparseRows, kernel: Any) -> Any:
    if kernel.dtype not in (
        tf.float32,
        tf.float64,
    ):  # NumPy, and so the kernels, know no others that TensorFlow trains in
        wide = rows._replace(values=tf.cast(rows.values, tf.float32))
        return tf.cast(_product_on_cpu(wide, tf.cast(kernel, tf.float32)), kernel.dtype)

    @tf.custom_gradient
    def product(values: Any, kernel: Any) -> Any:
        result = tf.numpy_function(multiply, [rows.row_ids, rows.columns, values, kernel], kernel.dtype, stateful=False)
        result.set_shape((None, kernel.shape[1]))

        def gradient(upstream: Any) -> Any:
            entries = [rows.row_ids, rows.columns, values, upstream, tf.shape(kernel)[0]]
            dtypes = [kernel.dtype, tf.int32]
            touched, columns = tf.numpy_function(multiply_transposed, entries, dtypes, stateful=False)
            touched.set_shape((None, kernel.shape[1]))
            columns.set_shape((None,))
            of_kernel = tf.IndexedSlices(touched, columns, tf.shape(kernel))
            of_values = tf.reduce_sum(tf.gather(upstream, rows.row_ids) * tf.gather(kernel, rows.columns), axis=1)
            return of_values, of_kernel  # the former costs nothing where nobody asks for it

        return result, gradient

    return product(rows.values, kernel)


def multiply(row_ids: np.ndarray, columns: np.ndarray, values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The product rows @ kernel.

    Args:
        row_ids: int32 `[nnz]`, ascending; the last row has an entry.
        columns: int32 `[nnz]`, below the kernel's height.
        values: `[nnz]`.
        kernel: `[num_columns, units]`.

    Raises:
        ValueError: a column is not in the kernel, which the loop over entries would not notice.
    """
    if columns.min() < 0 or columns.max() >= len(kernel):
        raise ValueError(
            f"The rows have columns {columns.min()} to {columns.max()}; the layer takes 0 to {len(kernel) - 1}."
        )
    product = aligned_empty((int(row_ids[-1]) + 1, kernel.shape[1]), kernel.dtype)
    _sum_rows(row_ids, columns, values, kernel, product)
    return product


def multiply_transposed(
    row_ids: np.ndarray, columns: np.ndarray, values: np.ndarray, upstream: np.ndarray, num_columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the product transpose(rows) @ upstream whose column has an entry, and these columns, ascending.

    An entry that is zero, as dropout leaves many, does not count.

    Args:
        row_ids: int32 `[nnz]`.
        columns: int32 `[nnz]`, below `num_columns`.
        values: `[nnz]`.
        upstream: `[b, units]`.
        num_columns: height of the whole product.

    Returns:
        Values `[m, units]`; columns int32 `[m]`.
    """
    slot_of, touched = _slots_of(columns, values, int(num_columns))
    product = aligned_empty((len(touched), upstream.shape[1]), upstream.dtype)
    _sum_rows_in_slots(slot_of, columns, row_ids, values, upstream, product)
    return product, touched


@compiled
def _slots_of(columns: np.ndarray, values: np.ndarray, num_columns: int) -> tuple[np.ndarray, np.ndarray]:
    """The place of each column among those with an entry that is not zero, and these columns, ascending.

    The place of any other column is 0, and means nothing.
    """
    slot_of = np.zeros(num_columns, np.int32)
    for entry in range(len(columns)):
        slot_of[columns[entry]] |= values[entry] != 0
    touched = np.flatnonzero(slot_of).astype(np.int32)
    for slot in range(len(touched)):
        slot_of[touched[slot]] = slot
    return slot_of, touched


@compiled
def _sum_rows(to: np.ndarray, of: np.ndarray, times: np.ndarray, matrix: np.ndarray, sums: np.ndarray) -> None:
    """Set `sums` to zero, and add to row `to[i]` row `of[i]` of `matrix` times `times[i]`, one `i` after the other.

    Entries that are zero are passed over.
    """
    sums[:] = 0
    for entry in range(len(to)):
        target, source, factor = to[entry], of[entry], times[entry]
        if factor == 0:
            continue
        for unit in range(matrix.shape[1]):
            sums[target, unit] += factor * matrix[source, unit]


@compiled
def _sum_rows_in_slots(
    slot_of: np.ndarray, to: np.ndarray, of: np.ndarray, times: np.ndarray, matrix: np.ndarray, sums: np.ndarray
) -> None:
    """As `_sum_rows`, but row `to[i]` is at `slot_of[to[i]]`."""
    sums[:] = 0
    for entry in range(len(to)):
        target, source, factor = slot_of[to[entry]], of[entry], times[entry]
        if factor == 0:
            continue
        for unit in range(matrix.shape[1]):
            sums[target, unit] += factor * matrix[source, unit]
