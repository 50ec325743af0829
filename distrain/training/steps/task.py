"""A built and compiled model, ready for the steps.

Decides: when a model is built, and what a model must accept. Never: trains.

    task = make_task(build, sample_batch, scope=distribution.scope(), num_columns={})
    steps = make_train_steps(task, distribution, batch_specs(sample_batch))
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from distrain.batch import Batch, SparseRows, feeding
from distrain.data.nests import is_nest, map_children, map_nest
from distrain.errors import ConfigurationError
from distrain.keras_backend.private_names import (
    compile_arguments,
    is_under_strategy,
    keep_layer_losses_of_threads_apart,
    leave_strategy,
)
from distrain.training.steps.losses import total_divisors, use_share_losses
from distrain.training.steps.metrics import MetricStates

# What Keras and TensorFlow raise for arguments that do not fit together.
_MISFITS = (ValueError, TypeError, KeyError, IndexError, AttributeError, tf.errors.InvalidArgumentError)

_OF_KERAS = re.compile(r"\x1b\[1m(.*?)\x1b\[0m", re.DOTALL)  # the sentence in the middle of an error of a layer
_OF_TENSORFLOW = re.compile(r"\{\{.*?\}\}|\[Op:\w+\] name:")  # names of nodes, which mean nothing to users


@dataclass(frozen=True)
class TrainableModel:
    """A compiled model, ready for the steps.

    Attributes:
        model: a built and compiled Keras model, whose optimizer is built.
        metrics: the states of its metrics.
        num_columns: width of sparse inputs, by input name.
        has_divisors: whether a loss divides by a number that only the forward pass knows, as with a mask.
        jit_compile: whether XLA compiles the optimizer's update, if the distribution allows this.
        jit_model: whether XLA compiles the forward and backward pass too.
    """

    model: Any
    metrics: MetricStates
    num_columns: dict[str, int]
    has_divisors: bool
    jit_compile: bool = True
    jit_model: bool = False

    @property
    def optimizer(self) -> Any:
        """The model's optimizer, within a `LossScaleOptimizer` where Keras scales the loss."""
        return self.model.optimizer


def make_task(
    build: Callable[[], Any],
    sample: Batch,
    *,
    scope: AbstractContextManager[Any],
    num_columns: Mapping[str, int],
    jit_compile: bool = True,
    jit_model: bool = False,
) -> TrainableModel:
    """Build model and optimizer in the distribution's scope, then call model, loss and metrics once on the sample.

    Args:
        build: returns a compiled `keras.Model`.
        sample: a batch of one or two examples.
        scope: context in which variables are made. States of metrics stay outside, as replicas sum them.
        num_columns: width of sparse inputs, by input name.
        jit_compile: whether XLA may compile the optimizer's update.
        jit_model: whether XLA must compile the model too, as also `compile(jit_compile=True)` of the model asks.

    Raises:
        ConfigurationError: the model, its loss or a metric does not accept the data.
    """
    tensors = tf.nest.map_structure(tf.constant, sample)
    model, outputs = built_model(build, sample, scope=scope, num_columns=num_columns)
    inputs = model_inputs(model, tensors.features, num_columns)
    labels, weights = given(tensors.labels), given(tensors.weights)
    compute_loss(model, inputs, labels, outputs, weights, training=False)
    results = compute_metrics(model, inputs, labels, outputs, weights)
    _require_tracked(model, results)
    use_share_losses(model)
    divisors: list[Any] = []

    def record(divisor: Any) -> Any:
        divisors.append(divisor)
        return divisor

    with feeding(tensors), total_divisors(record):
        compute_loss(model, inputs, labels, outputs, weights, training=False)
    model.reset_metrics()
    # Keras turns "auto" into True on a GPU; only a user's own True is a wish.
    jit_model |= compile_arguments(model).get("jit_compile") is True and model.jit_compile
    return TrainableModel(model, MetricStates(model), dict(num_columns), bool(divisors), jit_compile, jit_model)


def built_model(
    build: Callable[[], Any], sample: Batch, *, scope: AbstractContextManager[Any], num_columns: Mapping[str, int]
) -> tuple[Any, Any]:
    """Build model and optimizer as `make_task` does, without a look at labels; return the model and its outputs.

    Raises:
        ConfigurationError: the model does not accept the features.
    """
    with scope:
        model = build()
        outputs = first_call(model, sample, num_columns)
        model.optimizer.build(model.trainable_variables)
        if is_under_strategy():
            keep_layer_losses_of_threads_apart(model)
            leave_strategy(model)
    return model, outputs


def first_call(model: Any, sample: Batch, num_columns: Mapping[str, int]) -> Any:
    """Return a model's outputs for a sample.

    Raises:
        ConfigurationError: the model does not accept the features.
    """
    features = tf.nest.map_structure(tf.constant, sample.features)
    try:
        return model(model_inputs(model, features, num_columns), training=False)
    except _MISFITS as error:
        raise ConfigurationError(
            f"The model does not take the data, {_shapes(sample.features)}: {_reason(error)}"
        ) from error


def training_call(task: TrainableModel, batch: Batch) -> Any:
    """Return a model's outputs for a batch, called as a training step calls the model."""
    features = tf.nest.map_structure(tf.constant, batch.features)
    with feeding(batch):  # of which some layers take positions
        return task.model(model_inputs(task.model, features, task.num_columns), training=True)


def _reason(error: Exception) -> str:
    """Return what an error of Keras or TensorFlow says, in one line without names of nodes."""
    told = _OF_KERAS.search(str(error))
    text = told[1] if told else str(error)
    return _OF_TENSORFLOW.sub("", " ".join(text.split())).strip() or type(error).__name__


def _shapes(nest: Any) -> Any:
    def shape(array: Any) -> str:
        return "none" if array is None else f"{array.dtype.name}{list(array.shape)}".replace("None", "?")

    return tf.nest.map_structure(shape, nest)


def _require_tracked(model: Any, results: Mapping[str, Any]) -> None:
    """Refuse figures that a model's own `compute_metrics` returns but no metric holds: they cannot be summed."""
    untracked = sorted(set(results) - set(model.get_metrics_result()))
    if untracked:
        raise ConfigurationError(
            f"{type(model).__name__}.compute_metrics returns {', '.join(map(repr, untracked))}, which no metric of the "
            "model holds. Keep each figure in a keras.metrics.Metric that is an attribute of the model."
        )


def batch_specs(sample: Batch) -> Batch:
    """Return the `tf.TensorSpec` of each field of such a batch, for any number of rows or entries."""

    def spec(array: np.ndarray) -> Any:
        array = np.asarray(array)
        return tf.TensorSpec((None, *array.shape[1:]) if array.ndim else (), array.dtype)

    return tf.nest.map_structure(spec, sample)


def compute_loss(model: Any, inputs: Any, labels: Any, outputs: Any, weights: Any, *, training: bool) -> Any:
    """Return `model.compute_loss`, called as Keras calls it: with `training` unless the model's method lacks it.

    Raises:
        ConfigurationError: the loss does not accept the labels, outputs or weights.
    """
    takes_training = "training" in inspect.signature(model.compute_loss).parameters
    more = {"training": training} if takes_training else {}
    with _misfits_explained("loss", labels, outputs):
        return tf.convert_to_tensor(model.compute_loss(inputs, labels, outputs, weights, **more))


def compute_metrics(model: Any, inputs: Any, labels: Any, outputs: Any, weights: Any) -> Mapping[str, Any]:
    """Update the model's metrics, and return their results.

    Raises:
        ConfigurationError: a metric does not accept the labels, outputs or weights.
    """
    with _misfits_explained("metrics", labels, outputs):
        return model.compute_metrics(inputs, labels, outputs, sample_weight=weights)


@contextmanager
def _misfits_explained(part: str, labels: Any, outputs: Any) -> Iterator[None]:
    try:
        yield
    except _MISFITS as error:
        if labels is None:
            raise ConfigurationError(
                f"The {part} of the model cannot be computed, because the examples have no labels: give (x, y), or "
                "y beside x."
            ) from error
        raise ConfigurationError(
            f"The {part} of the model cannot be computed for labels {_shapes(labels)} and outputs {_shapes(outputs)}: "
            f"{_reason(error)}"
        ) from error


def model_inputs(model: Any, features: Any, num_columns: Mapping[str, int]) -> Any:
    """Return a model's inputs: `SparseRows` become a `tf.SparseTensor` unless `model.accepts_sparse_rows` is true."""
    if getattr(model, "accepts_sparse_rows", False):
        return features

    def convert(value: Any, name: str) -> Any:
        if not isinstance(value, SparseRows):
            return _in_floatx(value)
        indices = tf.stack([value.row_ids, value.columns], axis=1)
        num_rows = tf.cast(value.row_ids[-1], tf.int64) + 1
        return tf.SparseTensor(tf.cast(indices, tf.int64), value.values, tf.stack([num_rows, num_columns[name]]))

    return map_nest(convert, features)


def given(nest: Any) -> Any:
    """Return a nest of labels or weights as Keras takes it, with None where the data has none."""
    if is_nest(nest):
        return map_children(lambda key, value: given(value), nest) if nest else None
    return _in_floatx(nest)


def _in_floatx(value: Any) -> Any:
    """Return a floating tensor in Keras' default precision, as Keras' `fit` hands it to a model."""
    return tf.cast(value, keras.config.floatx()) if tf.is_tensor(value) and value.dtype.is_floating else value
