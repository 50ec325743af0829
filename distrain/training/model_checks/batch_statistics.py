"""Layers that look at several examples of a batch at once, and so at the division of a batch among replicas.

Decides: which statistics all replicas share, and what a run says about the others. Never: normalizes; Keras does.

    warning = share_batch_statistics(model, distribution, accumulation_steps)       # once, before the first step

`BatchNormalization(synchronized=True)` normalizes by mean and variance of the joint batch of all replicas. Keras sums
squares over the devices of one process only, and counts the example that an idle replica is fed. Here counts, sums and
squared differences travel by `Distribution.forward_sum`, on every distribution. As in Keras on one device, the mean is
known before differences are squared, so a large mean costs no precision.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import tensorflow as tf

from distrain.batch import current_batch
from distrain.distribution.base import Distribution
from distrain.errors import ConfigurationError
from distrain.keras_backend.private_names import all_layers, batch_moments, replace_batch_moments


def share_batch_statistics(model: Any, distribution: Distribution, accumulation_steps: int) -> str | None:
    """Let the synchronized layers of `model` use the joint batch of all replicas in each step.

    Outside a step, such as in `model.fit`, these layers behave as Keras wrote them.

    Args:
        model: a built Keras model; layers inside layers count.
        distribution: carries the sums.
        accumulation_steps: microbatches of each replica in one step.

    Returns:
        A sentence for the user if the trained model depends on the number of replicas or microbatches, else None.

    Raises:
        ConfigurationError: a layer keeps states of single examples, which replicas cannot share.
    """
    layers = all_layers(model)
    num_parts = distribution.num_replicas * accumulation_steps
    stateful = [layer.name for layer in layers if isinstance(layer, keras.layers.RNN) and layer.stateful]
    if stateful and num_parts > 1:
        raise ConfigurationError(
            f"The layer {stateful[0]!r} is stateful: it keeps a state for each row of a batch, but {num_parts} "
            "microbatches of a step have other rows. Use stateful=False, or one replica without accumulation."
        )
    normalizing = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in normalizing:
        if layer.synchronized:
            replace_batch_moments(layer, partial(_joint_moments, layer, distribution))
    return _warning(layers, distribution.num_replicas, accumulation_steps)


def _warning(layers: list[Any], num_replicas: int, accumulation_steps: int) -> str | None:
    training = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]
    own = [layer.name for layer in training if not layer.synchronized]
    if own and num_replicas * accumulation_steps > 1:
        return (
            f"{_named(own)} of its own microbatch alone: the model depends on the number of replicas "
            f"({num_replicas}) and of accumulation steps ({accumulation_steps}). "
            "BatchNormalization(synchronized=True) normalizes the examples of all replicas together."
        )
    if training and accumulation_steps > 1:
        return (
            f"{_named([layer.name for layer in training])} of one of {accumulation_steps} microbatches: synchronized "
            "layers join replicas, not accumulation steps. Use accumulation_steps 1 for the whole batch."
        )
    iterating = [layer.name for layer in layers if isinstance(layer, keras.layers.SpectralNormalization)]
    if iterating and accumulation_steps > 1:
        return (
            f"SpectralNormalization ({iterating[0]}) normalizes its kernel in each of {accumulation_steps} "
            "microbatches of a step. Use accumulation_steps 1 to normalize once a step."
        )
    return None


def _named(names: list[str]) -> str:
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"Batch normalization ({names[0]}{others}) uses the statistics"


def _joint_moments(layer: Any, distribution: Distribution, inputs: Any, mask: Any) -> tuple[Any, Any]:
    """Return mean and variance of `inputs` over the examples of all replicas, for each channel.

    With a mask, the divisor is the number of unmasked elements plus epsilon, as in Keras.
    """
    batch = current_batch()
    if batch is None:
        return batch_moments(layer, inputs, mask)
    axis = layer.axis % inputs.shape.rank
    axes = [number for number in range(inputs.shape.rank) if number != axis]
    num_rows = tf.cast(batch.num_rows, inputs.dtype)
    counted = tf.ones_like(inputs) * tf.minimum(num_rows, 1)  # the example of an idle replica counts 0
    if mask is not None:
        counted *= tf.cast(mask[..., tf.newaxis], inputs.dtype)
    own = [num_rows, tf.reduce_sum(counted, axes), tf.reduce_sum(tf.where(counted > 0, inputs, 0), axes)]
    all_rows, count, total = distribution.forward_sum(own)
    if mask is not None:
        count += keras.config.epsilon()
    mean = tf.math.divide_no_nan(total, count)
    shape = [1] * inputs.shape.rank
    shape[axis] = -1
    # The differences sum to 0, so the variance has no gradient through the mean.
    difference = tf.where(counted > 0, inputs - tf.reshape(tf.stop_gradient(mean), shape), 0)
    (squares,) = distribution.forward_sum([tf.reduce_sum(tf.square(difference), axes)])
    variance = tf.math.divide_no_nan(squares, count)
    moving = tf.cast(layer.moving_mean, mean.dtype), tf.cast(layer.moving_variance, variance.dtype)
    # With accumulation, the last microbatches of an epoch may be empty on all replicas: moving averages stay.
    return tf.where(all_rows > 0, mean, moving[0]), tf.where(all_rows > 0, variance, moving[1])
