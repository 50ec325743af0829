"""Whether the gradients of a step are finite numbers, at the price of one sum over each.

Decides: how a compiled step finds NaN and infinities. Never: what a step does about them.

    is_finite = all_finite(gradients)                  # a scalar, inside a compiled step
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BAD_LOSS, BAD_GRADIENT = 1, 2  # what is not finite in a replica's share of a step


def all_finite(gradients: Sequence[Any]) -> Any:
    """Return whether all numbers of some tensors or `tf.IndexedSlices` are finite.

    A sum is finite only if each of its numbers is, so one pass without temporaries finds NaN and infinities. A gradient
    whose numbers have a sum beyond the range of float32 counts as not finite too: no optimizer could use it.
    """
    import tensorflow as tf  # the numbers above are also read where TensorFlow is not loaded

    tensors = [gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient for gradient in gradients]
    return tf.math.is_finite(tf.add_n([tf.cast(tf.reduce_sum(_at_least_single(t)), tf.float64) for t in tensors]))


def _at_least_single(tensor: Any) -> Any:
    """Cast half precision to float32, in which the sum of many moderate numbers does not overflow."""
    import tensorflow as tf

    return tf.cast(tensor, tf.float32) if tensor.dtype in (tf.float16, tf.bfloat16) else tensor
