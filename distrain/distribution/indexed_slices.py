"""Gradients that touch some rows of a matrix, as dense tensors.

Decides: how rows add up. Never: whether rows travel.

    dense(tf.IndexedSlices(values, indices, dense_shape))
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def dense(gradient: Any) -> Any:
    """Return a gradient as a tensor; rows that `tf.IndexedSlices` name twice add up."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    shape = tuple(gradient.shape)
    return tf.scatter_nd(gradient.indices[:, tf.newaxis], gradient.values, tf.constant(shape, gradient.indices.dtype))
