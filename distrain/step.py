"""The compiled train and evaluate steps: weighted loss, global gradient, one grouped reduction.

Decides: what is computed from one global batch. Never: which batch that is, when a step runs, or how replicas meet.

    train = make_train_step(task, distribution, specs)
    sums = train([batch_of_each_local_replica])       # [sum of weighted losses, sum of weights, sums of metrics...]

The loss of a step is sum(weight * loss) / sum(weight) over the global batch: each replica divides by the global weight
and gradients are summed. Losses that a layer adds (regularization) count once: each replica takes 1 / N of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from distrain.batch import Batch, SparseRows, feeding
from distrain.errors import ConfigurationError
from distrain.metrics import MetricSums

Step = Callable[[Sequence[Batch]], list[np.ndarray]]


class Replicas(Protocol):
    """What a step needs of a distribution."""

    num_replicas: int
    jit_update: bool

    def compile(self, replica_step: Callable[[Any], Sequence[Any]], specs: Any) -> Callable[[Sequence[Any]], list[Any]]:
        """Compile a step for all replicas."""

    def sum(self, tensors: Sequence[Any]) -> list[Any]:
        """Sum tensors over all replicas."""


@dataclass(frozen=True)
class Task:
    """A model with what trains and judges it.

    Attributes:
        model: a built Keras model.
        optimizer: a Keras optimizer built on its trainable variables.
        loss: a `keras.losses.Loss`, or a function (labels, outputs) -> `[b, ...]`.
        metrics: the metrics' sums.
        num_columns: width of sparse inputs, by input name.
        jit_compile: compile the optimizer's update by XLA where the distribution allows it.
    """

    model: Any
    optimizer: Any
    loss: Any
    metrics: MetricSums
    num_columns: dict[str, int]
    jit_compile: bool = True


def make_train_step(task: Task, replicas: Replicas, specs: Any) -> Step:
    """Compile the training step.

    Args:
        task: what is trained.
        replicas: the distribution that it runs under.
        specs: a `Batch` of `tf.TensorSpec`.

    Returns:
        A function from the local replicas' batches to sums over the global batch.
    """
    variables = list(task.model.trainable_variables)
    if not variables:
        raise ConfigurationError("The model has no trainable weights; there is nothing to train.")

    def update(gradients: Sequence[Any]) -> None:
        task.optimizer.apply(gradients, variables)

    if replicas.jit_update and task.jit_compile:
        update = tf.function(update, jit_compile=True, autograph=False)

    def replica_step(batch: Batch) -> list[Any]:
        with tf.GradientTape() as tape:
            outputs = _call(task, batch, training=True)
            losses = example_losses(task.loss, batch.labels, outputs)
            weighted = tf.reduce_sum(batch.weights * losses)
            added = tf.add_n([tf.cast(loss, tf.float32) for loss in task.model.losses] or [tf.zeros(())])
            mean = tf.math.divide_no_nan(weighted, batch.global_weight)  # a whole step may weigh nothing
            loss = mean + added / replicas.num_replicas
            loss = task.optimizer.scale_loss(loss)
        gradients = tape.gradient(loss, [v.value for v in variables])
        gradients = [_dense(g, v) for g, v in zip(gradients, variables, strict=True)]
        sums = [weighted, tf.reduce_sum(batch.weights), *task.metrics.of_batch(batch.labels, outputs, batch.weights)]
        reduced = replicas.sum([*gradients, *sums])
        update(reduced[: len(gradients)])
        return reduced[len(gradients) :]

    return _as_arrays(replicas.compile(replica_step, specs))


def make_evaluate_step(task: Task, replicas: Replicas, specs: Any) -> Step:
    """Compile the evaluation step: the same sums, without dropout and without an update."""

    def replica_step(batch: Batch) -> list[Any]:
        outputs = _call(task, batch, training=False)
        weighted = tf.reduce_sum(batch.weights * example_losses(task.loss, batch.labels, outputs))
        sums = [weighted, tf.reduce_sum(batch.weights), *task.metrics.of_batch(batch.labels, outputs, batch.weights)]
        return replicas.sum(sums)

    return _as_arrays(replicas.compile(replica_step, specs))


def _as_arrays(compiled: Callable[[Sequence[Any]], list[Any]]) -> Step:
    return lambda batches: [output.numpy() for output in compiled(batches)]


def figures(sums: Sequence[np.ndarray], metrics: MetricSums) -> dict[str, float]:
    """Loss and metrics out of a step's summed outputs."""
    weight = float(sums[1])
    loss = float(sums[0]) / weight if weight else 0.0
    return {"loss": loss, **metrics.results(sums[2:])}


def _call(task: Task, batch: Batch, *, training: bool) -> Any:
    with feeding(batch):
        return task.model(model_inputs(task.model, batch.features, task.num_columns), training=training)


def model_inputs(model: Any, features: Any, num_columns: dict[str, int], name: str = "") -> Any:
    """What a model is called on: sparse rows as a `tf.SparseTensor`, unless it has `accepts_sparse_rows = True`."""
    if isinstance(features, dict):
        return {key: model_inputs(model, value, num_columns, key) for key, value in features.items()}
    if not isinstance(features, SparseRows) or getattr(model, "accepts_sparse_rows", False):
        return features
    indices = tf.stack([features.row_ids, features.columns], axis=1)
    num_rows = tf.cast(features.row_ids[-1], tf.int64) + 1
    return tf.SparseTensor(tf.cast(indices, tf.int64), features.values, tf.stack([num_rows, num_columns[name]]))


def example_losses(loss: Any, labels: Any, outputs: Any) -> Any:
    """The loss of each example, float32 `[b]`: the mean over further axes, as Keras reduces them.

    Raises:
        ConfigurationError: the loss gives one number for the whole batch.
    """
    values = loss.call(labels, outputs) if isinstance(loss, keras.losses.Loss) else loss(labels, outputs)
    if values.shape.rank == 0:
        raise ConfigurationError(
            f"The loss {getattr(loss, 'name', loss)!r} gives one number for a batch; it must give one per example "
            "(for a keras.losses.Loss: what its call() returns), so that uneven batches count each example once."
        )
    values = tf.cast(values, tf.float32)
    return tf.reduce_mean(values, axis=list(range(1, values.shape.rank))) if values.shape.rank > 1 else values


def _dense(gradient: Any, variable: Any) -> Any:
    if gradient is None:  # the loss does not depend on it: Keras leaves such a weight alone only if all replicas agree
        return tf.zeros(variable.shape, variable.dtype)
    return tf.convert_to_tensor(gradient)
