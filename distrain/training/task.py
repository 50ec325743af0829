"""A built model, its optimizer, loss and metrics, ready for the steps.

Decides: how a model is built and called, and how a loss becomes one number per example. Never: trains.

    task = make_task(build, sample_batch, scope=distribution.scope(), num_columns={})
    steps = make_train_steps(task, distribution, batch_specs(sample_batch))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from distrain.batch import Batch, SparseRows, feeding
from distrain.data.nests import map_nest
from distrain.errors import ConfigurationError
from distrain.training.metrics import MetricSums


@dataclass(frozen=True)
class TrainableModel:
    """A model with its optimizer, loss and metrics, ready for the steps.

    Attributes:
        model: a built Keras model.
        optimizer: a Keras optimizer built on its trainable variables.
        loss: a `keras.losses.Loss`, or a function (labels, outputs) -> `[b, ...]`.
        metrics: metrics as sums over batches.
        num_columns: width of sparse inputs, by input name.
        jit_compile: whether XLA compiles the optimizer's update, if the distribution allows this.
    """

    model: Any
    optimizer: Any
    loss: Any
    metrics: MetricSums
    num_columns: dict[str, int]
    jit_compile: bool = True


def make_task(
    build: Callable[[], Any],
    sample: Batch,
    *,
    scope: AbstractContextManager[Any],
    num_columns: Mapping[str, int],
    jit_compile: bool = True,
) -> TrainableModel:
    """Build model and optimizer in the distribution's scope, and call the model once on the sample.

    Args:
        build: returns a `models.build.CompiledModel`.
        sample: a batch of one or two examples.
        scope: context in which variables are made. Metrics stay outside, as replicas sum the metrics' states.
        num_columns: width of sparse inputs, by input name.
        jit_compile: whether XLA may compile the optimizer's update.

    Raises:
        ConfigurationError: the model does not accept these features.
    """
    tensors = tf.nest.map_structure(tf.constant, sample)
    with scope:
        built = build()
        model = built.model
        outputs = _first_call(model, tensors, num_columns)
        built.optimizer.build(model.trainable_variables)
        if getattr(model, "optimizer", None) is not built.optimizer:
            model.compile(optimizer=built.optimizer, loss=built.loss)  # callbacks set its learning rate
    metrics = MetricSums(built.metrics, tensors.labels, outputs)
    return TrainableModel(model, built.optimizer, built.loss, metrics, dict(num_columns), jit_compile)


def _first_call(model: Any, sample: Batch, num_columns: Mapping[str, int]) -> Any:
    try:
        outputs = model(model_inputs(model, sample.features, dict(num_columns)), training=False)
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        shapes = tf.nest.map_structure(lambda array: f"{array.dtype.name}{list(array.shape)}", sample.features)
        raise ConfigurationError(f"The model does not take the data, {shapes}: {error}") from error
    if not tf.is_tensor(outputs):
        raise ConfigurationError(f"The model returns {type(outputs).__name__}; it must return one tensor.")
    return outputs


def batch_specs(sample: Batch) -> Batch:
    """Return the `tf.TensorSpec` of each field of such a batch, for any number of rows or entries."""

    def spec(array: np.ndarray) -> Any:
        array = np.asarray(array)
        return tf.TensorSpec((None, *array.shape[1:]) if array.ndim else (), array.dtype)

    return tf.nest.map_structure(spec, sample)


def call_model(task: TrainableModel, batch: Batch, *, training: bool) -> Any:
    """Return the model's outputs for a batch, with the batch as the current one of its layers."""
    with feeding(batch):
        return task.model(model_inputs(task.model, batch.features, task.num_columns), training=training)


def model_inputs(model: Any, features: Any, num_columns: dict[str, int]) -> Any:
    """Return a model's inputs: `SparseRows` become a `tf.SparseTensor` unless `model.accepts_sparse_rows` is true."""

    def convert(value: Any, name: str) -> Any:
        if not isinstance(value, SparseRows) or getattr(model, "accepts_sparse_rows", False):
            return value
        indices = tf.stack([value.row_ids, value.columns], axis=1)
        num_rows = tf.cast(value.row_ids[-1], tf.int64) + 1
        return tf.SparseTensor(tf.cast(indices, tf.int64), value.values, tf.stack([num_rows, num_columns[name]]))

    return map_nest(convert, features)


def example_weights(batch: Batch, outputs: Any) -> Any:
    """Return the weight of each example of the outputs, float32 `[b]`; 0 for the example of an idle replica."""
    weights = tf.cast(batch.weights, tf.float32) if tf.nest.flatten(batch.weights) else tf.ones(tf.shape(outputs)[:1])
    return weights * tf.cast(batch.num_rows > 0, tf.float32)


def example_losses(loss: Any, labels: Any, outputs: Any) -> Any:
    """Return the loss of each example, float32 `[b]`: the mean over further axes, as Keras reduces them.

    Raises:
        ConfigurationError: the loss returns one number for the whole batch.
    """
    values = loss.call(labels, outputs) if isinstance(loss, keras.losses.Loss) else loss(labels, outputs)
    if values.shape.rank == 0:
        raise ConfigurationError(
            f"The loss {getattr(loss, 'name', loss)!r} gives one number for a batch; it must give one per example "
            "(for a keras.losses.Loss: what its call() returns), so that uneven batches count each example once."
        )
    values = tf.cast(values, tf.float32)
    return tf.reduce_mean(values, axis=list(range(1, values.shape.rank))) if values.shape.rank > 1 else values
