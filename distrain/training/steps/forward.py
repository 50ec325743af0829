"""The forward pass of a model on one share of a step: outputs, loss, and what the metrics add.

Decides: how Keras' own machinery is called. Never: gradients, updates, sums over replicas.

    pass_ = forward_pass(task, batch, training=True, total=sum_over_replicas)
    pass_.loss, pass_.sums

A model's `compute_loss` and `compute_metrics` run as in Keras' `train_step`, within a scope that collects the states
of the metrics. Other variables that a layer changes, such as moving averages, change as they do in Keras.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from distrain.batch import Batch, feeding
from distrain.training.steps.losses import Total, fraction, total_divisors
from distrain.training.steps.task import TrainableModel, compute_loss, compute_metrics, given, model_inputs


class ForwardPass(NamedTuple):
    """What a share contributes to a step.

    Attributes:
        loss: scalar; the sum over the shares is the loss of the step.
        sums: the loss times the count, the count, and what the share adds to the metrics' states.
    """

    loss: Any
    sums: list[Any]


def forward_pass(
    task: TrainableModel,
    batch: Batch,
    *,
    training: bool,
    total: Total,
    of_outputs: Callable[[Any], Any] = lambda outputs: outputs,
) -> ForwardPass:
    """Compute a share's loss and metrics.

    Args:
        task: the model.
        batch: the share.
        training: whether layers train.
        total: sums a divisor of the loss over all shares of the step.
        of_outputs: changes the outputs before the loss sees them; for checks.
    """
    model = task.model
    inputs = model_inputs(model, batch.features, task.num_columns)
    labels, weights = given(batch.labels), given(batch.weights)
    with feeding(batch), total_divisors(total), task.metrics.scope() as scope:
        outputs = of_outputs(model(inputs, training=training))
        share_mean = compute_loss(model, inputs, labels, outputs, weights, training=training)
        compute_metrics(model, inputs, labels, outputs, weights)
    sums = [*_loss_and_count(share_mean, batch), *task.metrics.added(scope, batch)]
    share_mean = tf.reduce_sum(share_mean)  # the gradient of a loss without reduction is the gradient of its sum
    return ForwardPass(_unless_idle(share_mean, fraction(batch, share_mean.dtype)), sums)


def _loss_and_count(share_mean: Any, batch: Batch) -> list[Any]:
    """Return the loss times its count, and the count, as `keras.metrics.Mean` counts the loss of a batch."""
    count = tf.cast(batch.num_rows, share_mean.dtype)
    if share_mean.shape.rank is None:  # what leaves a loop of steps needs a shape
        share_mean = tf.ensure_shape(share_mean, ())
    if share_mean.shape.rank:  # a value per example, times G / b: Keras counts the mean of the values
        share_mean = tf.reduce_mean(share_mean) * fraction(batch, share_mean.dtype)
    return [_unless_idle(share_mean, count), count]


def _unless_idle(value: Any, factor: Any) -> Any:
    """Return value * factor, and 0 for a factor of 0 even if the example of an idle replica gives no number."""
    return tf.math.multiply_no_nan(value, factor)
