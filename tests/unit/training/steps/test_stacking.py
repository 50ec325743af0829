"""Outputs of a step as one vector: each value comes back, bit by bit, whatever its dtype."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from distrain.training.steps.stacking import stacked, unstacked

VALUES = {
    "float16": [0.1, -65504, np.nan],
    "bfloat16": [0.1, 3e38, -np.inf],
    "float32": [1e-45, np.nan, -0.0],
    "float64": [1e-320, 0.1, np.inf],
    "int8": [-128, 0, 127],
    "uint8": [0, 1, 255],
    "int32": [-(2**31), 1, 2**31 - 1],
    "int64": [-(2**63), 2**53 + 1, 2**63 - 1],
    "bool": [True, False, True],
}


@pytest.mark.parametrize("dtype", VALUES)
def test_values_come_back_bit_by_bit(dtype):
    wanted = np.array(VALUES[dtype]).astype(tf.as_dtype(dtype).as_numpy_dtype)
    outputs = [tf.constant(wanted), tf.constant(wanted[0]), tf.constant(wanted[:2].reshape(2, 1))]
    step = tf.function(lambda: stacked([tf.constant(7, tf.int64), *outputs]), autograph=False)
    layout = [tf.TensorSpec([], tf.int64), *(tf.TensorSpec(o.shape, o.dtype) for o in outputs)]
    first, *found = unstacked(step().numpy(), layout)
    assert int(first) == 7
    for own, output in zip(found, outputs, strict=True):
        assert (own.shape, own.dtype) == (output.shape, output.dtype)
        assert own.tobytes() == output.numpy().tobytes()
