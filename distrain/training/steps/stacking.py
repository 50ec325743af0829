"""The outputs of a step as one vector, so that the host reads from the device once.

Decides: how outputs lie in the vector. Never: what an output means.

    vector = stacked(outputs)                                        # inside the compiled step
    arrays = unstacked(vector.numpy(), outputs)

The vector holds the bits of the outputs in words of 32 bits. Its dtype is float32, which has a kernel on each device
for each operation on lists of tensors. No operation computes with the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from distrain.errors import ConfigurationError

_WORD = tf.float32


def stacked(outputs: Sequence[Any]) -> Any:
    """Return the bits of some tensors, one after the other, as a float32 vector.

    Raises:
        ConfigurationError: the shape of an output is not known before a step runs.
    """
    for output in outputs:
        if not output.shape.is_fully_defined():
            raise ConfigurationError(
                "On a GPU, and with --steps-per-execution, the loss needs a shape that is known before a step, but it "
                f"has {output.shape}. Give it one by tf.ensure_shape, or train with --devices cpu:1 one step a call."
            )
    words = [tf.bitcast(tf.cast(output, _dtype_in_words(output.dtype)), _WORD) for output in outputs]
    return tf.concat([tf.reshape(word, [-1]) for word in words], axis=0)


def unstacked(vector: np.ndarray, outputs: Sequence[Any]) -> list[np.ndarray]:
    """Return the arrays of some outputs, given the value of `stacked(outputs)`."""
    arrays, first = [], 0
    for output in outputs:
        dtype = _dtype_in_words(output.dtype)
        after = first + output.shape.num_elements() * dtype.size // _WORD.size
        values = vector[first:after].view(dtype.as_numpy_dtype).reshape(output.shape)
        arrays.append(values.astype(output.dtype.as_numpy_dtype, copy=False))
        first = after
    return arrays


def _dtype_in_words(dtype: tf.DType) -> tf.DType:
    """Return the dtype in which values travel: whole words that hold each value exactly."""
    if dtype.size >= _WORD.size:
        return dtype
    return tf.float32 if dtype.is_floating else tf.int32
