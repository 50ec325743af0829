"""Gradients of some rows as dense tensors, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from distrain.distribution.indexed_slices import dense


@pytest.mark.parametrize("shape", [(7,), (7, 3), (7, 2, 5)])
@pytest.mark.parametrize("index_dtype", ["int32", "int64"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("indices", [[], [3], [5, 0, 5, 6, 5]])
def test_rows_that_are_named_twice_add_up(shape, index_dtype, dtype, indices):
    values = np.arange(len(indices) * int(np.prod(shape[1:])), dtype=np.float64).reshape(len(indices), *shape[1:])
    expected = np.zeros(shape)
    np.add.at(expected, np.array(indices, int), values)
    slices = tf.IndexedSlices(tf.cast(values, dtype), tf.constant(indices, index_dtype), tf.constant(shape, tf.int64))
    found = tf.function(lambda: dense(slices))()
    assert (found.dtype, found.shape) == (tf.as_dtype(dtype), shape)
    np.testing.assert_array_equal(tf.cast(found, tf.float64), expected)


def test_a_dense_gradient_stays_as_it_is():
    gradient = tf.ones((2, 3))
    assert dense(gradient) is gradient
