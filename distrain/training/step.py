"""The compiled train and evaluate steps: weighted loss, global gradient, one grouped reduction.

Decides: what is computed from one global batch. Never: which batch that is, when a step runs, or how replicas meet.

    train = make_train_steps(task, distribution, specs)
    (outcome,) = train([batches_of_the_local_replicas])
    outcome.sums                # [sum of weighted losses, sum of weights, sums of metrics...]

The loss of a step is sum(weight * loss) / sum(weight) over the global batch: each replica divides by the global weight
and gradients are summed. Losses that a layer adds (regularization) count once: each replica takes its share of them.

What a process has to tell the others (`Batch.step_flags`) is summed beside the gradients, so that all know it after the
same step. Where one failed, or a loss is not finite, the step leaves the weights as they were, and so do those that
follow it in the same call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
import tensorflow as tf

from distrain.batch import Batch, Memory, SparseRows, feeding
from distrain.errors import ConfigurationError
from distrain.training.metrics import MetricSums


class Outcome(NamedTuple):
    """What a step gives, the same on every process.

    Attributes:
        sums: over the global batch: weighted losses, weights, then the metrics' sums.
        num_stops: replicas whose process was asked to stop.
        num_failures: replicas whose process cannot go on.
        num_diverged: replicas on whose examples the loss was not finite.
        diverged: sum of the numbers of these replicas.
    """

    sums: list[np.ndarray]
    num_stops: int
    num_failures: int
    num_diverged: int
    diverged: int

    @property
    def is_sound(self) -> bool:
        """Whether a training step changed the weights."""
        return self.num_failures == 0 and self.num_diverged == 0


Step = Callable[[Sequence[Batch]], Outcome]
Steps = Callable[[Sequence[Sequence[Batch]]], list[Outcome]]


class Replicas(Protocol):
    """What a step needs of a distribution."""

    num_replicas: int
    local_update: bool
    gradient_memory: Memory | None

    def compile(
        self, replica_step: Callable[[Sequence[Any]], Sequence[Any]], specs: Any, *, num_batches: int = 1
    ) -> Callable[[Sequence[Any]], list[Any]]:
        """Compile a step for all replicas."""

    def sum(
        self, gradients: Sequence[Any], figures: Sequence[Any], *, used_at_once: bool = False
    ) -> tuple[list[Any], list[Any]]:
        """Sum tensors over all replicas."""


@dataclass(frozen=True)
class TrainableModel:
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


def make_train_steps(
    task: TrainableModel, replicas: Replicas, specs: Any, *, accumulation_steps: int = 1, steps_per_execution: int = 1
) -> Steps:
    """Compile the training step.

    Args:
        task: what is trained.
        replicas: the distribution that it runs under.
        specs: a `Batch` of `tf.TensorSpec`.
        accumulation_steps: batches that each replica takes one after the other for one update.
        steps_per_execution: steps that are compiled into one call: what a call costs is then paid once for all.

    Returns:
        A function from the batches of one step or several, at most `steps_per_execution`, to the outcome of each. A
        step's batches are those of the local replicas, replica after replica. After a step that leaves the weights as
        they were, outcomes are missing or mean nothing.
    """
    variables = list(task.model.trainable_variables)
    if not variables:
        raise ConfigurationError("The model has no trainable weights; there is nothing to train.")
    num_microbatches = replicas.num_replicas * accumulation_steps

    def update(gradients: Sequence[Any]) -> Any:
        task.optimizer.apply(gradients, variables)
        return tf.zeros(())

    is_one_operation = replicas.local_update and task.jit_compile
    if is_one_operation:
        update = tf.function(update, jit_compile=True, autograph=False)

    def gradients_of(batch: Batch) -> tuple[list[Any], list[Any]]:
        with tf.GradientTape() as tape:
            outputs = _call(task, batch, training=True, gradient_memory=replicas.gradient_memory)
            losses = example_losses(task.loss, batch.labels, outputs)
            weighted = tf.reduce_sum(batch.weights * losses)
            added = tf.add_n([tf.cast(loss, tf.float32) for loss in task.model.losses] or [tf.zeros(())])
            mean = tf.math.divide_no_nan(weighted, batch.global_weight)  # a whole step may weigh nothing
            loss = mean + added / num_microbatches
            loss = task.optimizer.scale_loss(loss)
        gradients = tape.gradient(loss, [v.value for v in variables])
        gradients = [_of_known_shape(g, v) for g, v in zip(gradients, variables, strict=True)]
        return gradients, [weighted, *_weight_and_metrics(task, batch, outputs)]

    def replica_step(batches: Sequence[Batch], is_sound: Any) -> tuple[list[Any], Any]:
        gradients, sums = gradients_of(batches[0])
        for batch in batches[1:]:
            with tf.control_dependencies(sums + gradients):  # one after the other: that is what saves memory
                more_gradients, more_sums = gradients_of(batch)
            gradients = list(map(_added, gradients, more_gradients))
            sums = list(map(_added, sums, more_sums))
        # The loss depends on weights, so that the next step's sum comes after an update that is one operation.
        gradients, sums = replicas.sum(
            gradients, [*sums, _step_flags(batches[0], sums[0])], used_at_once=is_one_operation
        )
        if replicas.local_update:
            is_sound &= tf.math.is_finite(sums[0]) & (sums[-1][1] == 0)
            tf.cond(is_sound, lambda: update(gradients), lambda: tf.zeros(()))
        else:  # one process, which keeps nothing of a step that failed
            update(gradients)
        return sums, is_sound

    def replica_steps(batches: Sequence[Batch]) -> list[Any]:
        outputs, is_sound = [], tf.constant(True)
        for first in range(0, len(batches), accumulation_steps):
            sums, is_sound = replica_step(batches[first : first + accumulation_steps], is_sound)
            outputs += sums
        return outputs

    one_step = _outcomes(replicas.compile(replica_steps, specs, num_batches=accumulation_steps))
    if steps_per_execution == 1:
        all_steps = one_step
    else:
        num_batches = accumulation_steps * steps_per_execution
        all_steps = _outcomes(replicas.compile(replica_steps, specs, num_batches=num_batches), steps_per_execution)

    def run(steps: Sequence[Sequence[Batch]]) -> list[Outcome]:
        if len(steps) == steps_per_execution:
            shares = range(0, len(steps[0]), accumulation_steps)
            return all_steps([batch for s in shares for step in steps for batch in step[s : s + accumulation_steps]])
        outcomes = []
        for step in steps:  # fewer are left at the end of an epoch
            outcomes += one_step(step)
            if not outcomes[-1].is_sound:
                break
        return outcomes

    return run


def make_evaluate_step(task: TrainableModel, replicas: Replicas, specs: Any) -> Step:
    """Compile the evaluation step: the same sums, without dropout and without an update."""

    def replica_step(batches: Sequence[Batch]) -> list[Any]:
        (batch,) = batches
        outputs = _call(task, batch, training=False)
        weighted = tf.reduce_sum(batch.weights * example_losses(task.loss, batch.labels, outputs))
        sums = [weighted, *_weight_and_metrics(task, batch, outputs), _step_flags(batch, weighted)]
        return replicas.sum([], sums)[1]

    evaluate = _outcomes(replicas.compile(replica_step, specs))
    return lambda batches: evaluate(batches)[0]


def _weight_and_metrics(task: TrainableModel, batch: Batch, outputs: Any) -> list[Any]:
    return [tf.reduce_sum(batch.weights), *task.metrics.of_batch(batch.labels, outputs, batch.weights)]


def _step_flags(batch: Batch, weighted_loss: Any) -> Any:
    """What is summed beside the gradients, float32 `[4]`, in the order of `Outcome`."""
    stop, failed, replica = tf.unstack(batch.step_flags, num=3)
    diverged = tf.cast(~tf.math.is_finite(weighted_loss), tf.float32)
    return tf.stack([stop, failed, diverged, diverged * (replica - 1)])


def _outcomes(
    compiled: Callable[[Sequence[Any]], list[Any]], num_steps: int = 1
) -> Callable[[Sequence[Batch]], list[Outcome]]:
    def run(batches: Sequence[Batch]) -> list[Outcome]:
        outputs = [output.numpy() for output in compiled(batches)]
        width = len(outputs) // num_steps
        steps = [outputs[first : first + width] for first in range(0, len(outputs), width)]
        return [Outcome(sums, *map(int, noticed)) for *sums, noticed in steps]

    return run


def figures(sums: Sequence[np.ndarray], metrics: MetricSums) -> dict[str, float]:
    """Loss and metrics out of a step's summed outputs."""
    weight = float(sums[1])
    loss = float(sums[0]) / weight if weight else 0.0
    return {"loss": loss, **metrics.results(sums[2:])}


def _call(task: TrainableModel, batch: Batch, *, training: bool, gradient_memory: Memory | None = None) -> Any:
    with feeding(batch, gradient_memory=gradient_memory):
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


def _of_known_shape(gradient: Any, variable: Any) -> Any:
    """A gradient as a tensor, or as rows with the variable's shape; zeros where the loss does not depend on it."""
    if gradient is None:  # Keras leaves such a weight alone only if all replicas agree
        return tf.zeros(variable.shape, variable.dtype)
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values, gradient.indices, tf.constant(tuple(variable.shape), tf.int64))
    return gradient


def _added(a: Any, b: Any) -> Any:
    if not isinstance(a, tf.IndexedSlices):
        return a + b
    return tf.IndexedSlices(
        tf.concat([a.values, b.values], axis=0), tf.concat([a.indices, b.indices], axis=0), a.dense_shape
    )
