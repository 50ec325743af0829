"""The loss of a share of the global batch, such that the shares' losses, weighted by their examples, add up exactly.

Decides: by what a loss divides when a step is divided among replicas. Never: computes a loss; Keras does.

    use_share_losses(model)                                   # once the model has seen a sample batch
    with feeding(batch), total_divisors(sum_over_replicas):   # a step
        loss = model.compute_loss(x, y, y_pred, sample_weight)

A share with b of the G examples of a step weighs b / G. So a mean over examples needs no change. Keras divides some
losses by another number: by the positions that a mask leaves, by the sum of the weights, or by nothing. Such a loss is
divided by this number summed over all shares, times b / G.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from distrain.batch import Batch, current_batch
from distrain.keras_backend.private_names import mask_of, masked, replace_losses

Total = Callable[[Any], Any]  # a share's divisor -> the sum of the divisors of all shares of the step

_of_thread = threading.local()  # MirroredStrategy traces each replica in a thread of its own


@contextmanager
def total_divisors(total: Total) -> Iterator[None]:
    """Sum divisors by `total` while this thread computes the losses of a share."""
    before = getattr(_of_thread, "total", None)
    _of_thread.total = total
    try:
        yield
    finally:
        _of_thread.total = before


def use_share_losses(model: Any) -> None:
    """Give the shares' divisors to all losses of a compiled model that has computed its loss once."""
    replace_losses(model, lambda loss: loss if isinstance(loss, ShareLoss) else ShareLoss(loss))


class ShareLoss(keras.losses.Loss):
    """A loss that is exact on shares of a step, and the loss itself outside a step.

    A loss whose class overrides `__call__` stays as it is: its value counts as a mean over the share's examples.

    Args:
        loss: a loss of `keras.losses`, or of a subclass.
    """

    def __init__(self, loss: Any) -> None:
        super().__init__(name=loss.name, reduction=loss.reduction, dtype=loss.dtype)
        self.loss = loss

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the share's loss: a scalar, or `[b, ...]` without a reduction."""
        batch = current_batch()
        if batch is None or type(self.loss).__call__ is not keras.losses.Loss.__call__:
            return self.loss(y_true, y_pred, sample_weight)
        values: list[Any] = []

        def recorded(y_true: Any, y_pred: Any) -> Any:
            values.append(self.loss.call(y_true, y_pred))
            return values[-1]

        def reduced(function: Callable[[Any, Any], Any], reduction: str | None, weight: Any) -> Any:
            return _Values(function, reduction, self.dtype)(y_true, y_pred, weight)

        own = reduced(recorded, self.reduction, sample_weight)
        if self.reduction in ("sum", None, "none"):
            return own * _inverse_fraction(batch, own.dtype)
        by_weight = self.reduction == "mean_with_sample_weight" and sample_weight is not None
        if not by_weight and mask_of(values[0]) is None and all(map(_is_unmasked, keras.tree.flatten(y_pred))):
            return own  # Keras divides by the number of values, which is proportional to the examples
        weight = sample_weight if by_weight or sample_weight is None else tf.ones_like(sample_weight)
        total = reduced(lambda *_: values[0], "sum", sample_weight)
        # Keras' sum of ones over Keras' mean of ones is the number by which Keras divides.
        ones = masked(tf.ones_like(values[0]), mask_of(values[0]))
        divisor = tf.math.divide_no_nan(
            reduced(lambda *_: ones, "sum", weight), reduced(lambda *_: ones, self.reduction, weight)
        )
        divisor *= tf.cast(batch.num_rows > 0, divisor.dtype)  # an idle replica is fed an example that does not count
        all_divisors = tf.stop_gradient(_of_thread.total(tf.stop_gradient(divisor)))
        return tf.math.divide_no_nan(total, all_divisors) * _inverse_fraction(batch, own.dtype)


class _Values(keras.losses.Loss):
    """The values of a function, reduced as Keras reduces the values of a loss."""

    def __init__(self, function: Callable[[Any, Any], Any], reduction: str | None, dtype: Any) -> None:
        super().__init__(reduction=reduction, dtype=dtype)
        self._function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self._function(y_true, y_pred)


def fraction(batch: Batch, dtype: Any) -> Any:
    """Return the share's part of the examples of its step, b / G, as a scalar; 0 if the step has no examples."""
    return tf.math.divide_no_nan(tf.cast(batch.num_rows, dtype), tf.cast(batch.global_rows, dtype))


def _is_unmasked(tensor: Any) -> bool:
    return mask_of(tensor) is None


def _inverse_fraction(batch: Batch, dtype: Any) -> Any:
    """Return G / b; 0 for an idle replica."""
    return tf.math.divide_no_nan(tf.cast(batch.global_rows, dtype), tf.cast(batch.num_rows, dtype))
