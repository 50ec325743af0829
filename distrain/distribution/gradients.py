"""Gradients that touch some rows of a matrix, as dense ones.

Decides: how rows are added up. Never: whether they travel.

    dense(tf.IndexedSlices(values, indices, dense_shape))
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def dense(gradient: Any) -> Any:
    """A gradient as a tensor; rows of `tf.IndexedSlices` that are named twice add up."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    shape = tf.constant(tuple(gradient.shape), gradient.indices.dtype)
    return tf.scatter_nd(gradient.indices[:, tf.newaxis], gradient.values, shape)
