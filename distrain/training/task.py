"""A built model, its optimizer, loss and metrics, ready for the steps.

Decides: how a model that builds itself on its first call is built. Never: trains.

    task = make_task(build, sample_batch, scope=distribution.scope(), num_columns={})
    steps = make_train_steps(task, distribution, batch_specs(sample_batch))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import tensorflow as tf

from distrain.batch import Batch
from distrain.errors import ConfigurationError
from distrain.training.metrics import MetricSums
from distrain.training.step import TrainableModel, model_inputs


def make_task(
    build: Callable[[], Any],
    sample: Batch,
    *,
    scope: AbstractContextManager[Any],
    num_columns: Mapping[str, int],
    jit_compile: bool = True,
) -> TrainableModel:
    """Build model and optimizer in the distribution's scope; a model that builds itself is called on the sample.

    Args:
        build: makes model, optimizer, loss and metrics, as `models.build.CompiledModel` has them.
        sample: a batch of one or two examples.
        scope: where variables are made. Metrics stay outside: their state is summed, not mirrored.
        num_columns: width of sparse inputs, by input name.
        jit_compile: whether the optimizer's update may be compiled by XLA.

    Raises:
        ConfigurationError: the model does not take these features.
    """
    tensors = tf.nest.map_structure(tf.constant, sample)
    with scope:
        built = build()
        model = built.model
        outputs = _first_call(model, tensors, num_columns)
        built.optimizer.build(model.trainable_variables)
        if getattr(model, "optimizer", None) is not built.optimizer:
            model.compile(optimizer=built.optimizer, loss=built.loss)  # callbacks change model.optimizer's rate
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
    """The `tf.TensorSpec` of each field of a batch like this one, of any number of rows or entries."""

    def spec(array: np.ndarray) -> Any:
        array = np.asarray(array)
        return tf.TensorSpec((None, *array.shape[1:]) if array.ndim else (), array.dtype)

    return tf.nest.map_structure(spec, sample)
