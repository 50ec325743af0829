"""The product of sparse rows and a dense matrix inside a step, and the gradient of the product.

Decides: how a device multiplies sparse rows. Never: how a layer uses the product.

    product = sparse_product(rows, kernel, on_gpu=False)       # rows: SparseRows; kernel: [num_columns, units]

On a CPU the graph calls two compiled kernels that loop over the entries. TensorFlow's own operations (`gather` with
`segment_sum`, or `tf.SparseTensor` products) write one matrix row per entry to memory. With them the whole step took
about twice as long (`benchmarks/RESULTS.md`). On a GPU the entries travel to the device, which makes them a dense
matrix, unless that matrix would be larger than `MAX_DENSE_BYTES`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from distrain.aligned_memory import aligned_empty
from distrain.batch import SparseRows
from distrain.jit import compiled

MAX_DENSE_BYTES = 2**30  # 13,421 rows of 20,000 columns; the dense rows of 65,536 would take 5.2 GB


def sparse_product(rows: SparseRows, kernel: Any, *, on_gpu: bool) -> Any:
    """Return the matrix product of sparse rows and `kernel`, `[b, units]`, in the dtype of `kernel`.

    The gradient of `kernel` is dense in every distribution, as the optimizer needs it. Gradients of touched rows, made
    dense afterwards, took 10% to 20% more CPU time a step on one device (n-grams, batch 512).

    Args:
        rows: `[b, num_columns]`, as tensors; entries of the same row and column add up.
        kernel: float `[num_columns, units]`.
        on_gpu: whether the step runs on a GPU.
    """
    rows = rows._replace(values=tf.cast(rows.values, kernel.dtype))
    return _product_on_gpu(rows, kernel) if on_gpu else _product_on_cpu(rows, kernel)


def _product_on_gpu(rows: SparseRows, kernel: Any) -> Any:
    """Multiply dense rows, or entry by entry if the dense rows would be too large.

    The number of rows is an int32, which TensorFlow keeps on the host. So the host waits for no tensor of the device.
    """
    num_rows, (num_columns, units) = rows.row_ids[-1] + 1, kernel.shape
    is_large = num_rows > MAX_DENSE_BYTES // (num_columns * kernel.dtype.size)

    def dense(values: Any) -> Any:
        return tf.scatter_nd(tf.stack([rows.row_ids, rows.columns], axis=1), values, tf.stack([num_rows, num_columns]))

    def by_entries(to: Any, num_sums: Any, of: Any, values: Any, matrix: Any) -> Any:
        """Return `num_sums` rows: the sums over the entries of value times row `of` of a matrix, at row `to`."""
        wide = tf.cast(values[:, tf.newaxis] * tf.gather(matrix, of), tf.float64 if is_double else tf.float32)
        return tf.cast(tf.math.unsorted_segment_sum(wide, to, num_sums), kernel.dtype)

    is_double = kernel.dtype == tf.float64

    @tf.custom_gradient
    def product(values: Any, kernel: Any) -> Any:
        result = tf.cond(
            is_large,
            lambda: by_entries(rows.row_ids, num_rows, rows.columns, values, kernel),
            lambda: tf.matmul(dense(values), kernel),
        )
        result.set_shape((None, units))

        def gradient(upstream: Any) -> Any:
            of_kernel = tf.cond(
                is_large,
                lambda: by_entries(rows.columns, num_columns, rows.row_ids, values, upstream),
                lambda: tf.matmul(dense(values), upstream, transpose_a=True),
            )
            of_kernel.set_shape((num_columns, units))
            of_values = tf.reduce_sum(tf.gather(upstream, rows.row_ids) * tf.gather(kernel, rows.columns), axis=1)
            return of_values, of_kernel

        return result, gradient

    return product(rows.values, kernel)


def _product_on_cpu(rows: SparseRows, kernel: Any) -> Any:
    if kernel.dtype not in (tf.float32, tf.float64):  # compiled kernels support no half precision
        wide = rows._replace(values=tf.cast(rows.values, tf.float32))
        return tf.cast(_product_on_cpu(wide, tf.cast(kernel, tf.float32)), kernel.dtype)

    @tf.custom_gradient
    def product(values: Any, kernel: Any) -> Any:
        result = tf.numpy_function(multiply, [rows.row_ids, rows.columns, values, kernel], kernel.dtype, stateful=False)
        result.set_shape((None, kernel.shape[1]))

        def gradient(upstream: Any) -> Any:
            entries = [rows.row_ids, rows.columns, values, upstream, tf.shape(kernel)[0]]
            of_kernel = tf.numpy_function(multiply_transposed, entries, kernel.dtype, stateful=False)
            of_kernel.set_shape(kernel.shape)
            of_values = tf.reduce_sum(tf.gather(upstream, rows.row_ids) * tf.gather(kernel, rows.columns), axis=1)
            return of_values, of_kernel  # TensorFlow prunes the gradient of values if unused

        return result, gradient

    return product(rows.values, kernel)


def multiply(row_ids: np.ndarray, columns: np.ndarray, values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return the product rows @ kernel.

    Args:
        row_ids: int32 `[nnz]`, ascending; the last row has an entry.
        columns: int32 `[nnz]`, below the kernel's height.
        values: `[nnz]`.
        kernel: `[num_columns, units]`.

    Raises:
        ValueError: a column is outside the kernel; the compiled loop would read beyond the array.
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
) -> np.ndarray:
    """Return the product transpose(rows) @ upstream, `[num_columns, units]`, of `upstream` `[b, units]`."""
    product = aligned_empty((int(num_columns), upstream.shape[1]), upstream.dtype)
    _sum_rows(columns, row_ids, values, upstream, product)
    return product


@compiled
def _sum_rows(to: np.ndarray, of: np.ndarray, times: np.ndarray, matrix: np.ndarray, sums: np.ndarray) -> None:
    """Set `sums` to zero, then add `times[i]` times row `of[i]` of `matrix` to row `to[i]`, in the order of `i`."""
    sums[:] = 0
    for entry in range(len(to)):
        target, source, factor = to[entry], of[entry], times[entry]
        if factor == 0:
            continue
        for unit in range(matrix.shape[1]):
            sums[target, unit] += factor * matrix[source, unit]
