"""Gradients of some rows as dense tensors, against NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from distrain.distribution.indexed_slices import dense


@pytest.mark.parametrize("shape", [(7,), (7, 3), (7, 2, 5)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_rows_that_are_named_twice_add_up(shape, dtype):
    cases = list(itertools.product([[], [3], [5, 0, 5, 6, 5]], ["int32", "int64"]))
    slices, expected = [], []
    for indices, index_dtype in cases:
        values = np.arange(len(indices) * int(np.prod(shape[1:])), dtype=np.float64).reshape(len(indices), *shape[1:])
        expected.append(np.zeros(shape))
        np.add.at(expected[-1], np.array(indices, int), values)
        dense_shape = tf.constant(shape, tf.int64)
        slices.append(tf.IndexedSlices(tf.cast(values, dtype), tf.constant(indices, index_dtype), dense_shape))
    traced = tf.function(lambda: [dense(one) for one in slices])()  # in one graph, as gradients of a step are
    for case, found, wanted in zip(cases, traced, expected, strict=True):
        assert (found.dtype, found.shape) == (tf.as_dtype(dtype), shape), case
        np.testing.assert_array_equal(tf.cast(found, tf.float64), wanted, str(case))


def test_a_dense_gradient_stays_as_it_is():
    gradient = tf.ones((2, 3))
    assert dense(gradient) is gradient
