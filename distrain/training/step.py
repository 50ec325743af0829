"""The compiled train and evaluate steps: weighted loss, global gradient, one grouped reduction.

Decides: what one global batch computes. Never: which batch that is, when a step runs, or how replicas communicate.

    train = make_train_steps(task, distribution, specs)
    (outcome,) = train([batches_of_the_local_replicas])
    outcome.sums                # [sum of weighted losses, examples, sums of metrics...]

The loss of a step is sum(weight * loss) / examples over the global batch. Each replica divides by the examples of the
step, and gradients are summed. Losses that a layer adds (regularization) count once: each replica adds its fraction.

`Batch.step_flags` travel with the gradients, so that all processes know the flags after the same step. If a process
failed or a loss is not finite, this step and the later steps of the same call leave the weights unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from distrain.batch import Batch
from distrain.errors import ConfigurationError
from distrain.training.metrics import MetricSums
from distrain.training.task import TrainableModel, call_model, example_losses, example_weights


class Outcome(NamedTuple):
    """What a step returns, the same on every process.

    Attributes:
        sums: weighted losses, examples, and the metrics' sums, each summed over the global batch.
        num_stops: replicas whose process received a request to stop.
        num_failures: replicas whose process cannot continue.
        num_diverged: replicas with a loss that is not finite.
        diverged: sum of the numbers of the diverged replicas, from 0.
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
    """The part of `Distribution` that a step uses."""

    num_replicas: int
    local_update: bool

    def compile(
        self, replica_step: Callable[[Sequence[Any]], Sequence[Any]], specs: Any, *, num_batches: int = 1
    ) -> Callable[[Sequence[Any]], list[Any]]:
        """Compile a step for all replicas."""

    def sum(self, gradients: Sequence[Any], metrics: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Sum tensors over all replicas."""


def make_train_steps(
    task: TrainableModel, replicas: Replicas, specs: Any, *, accumulation_steps: int = 1, steps_per_execution: int = 1
) -> Steps:
    """Compile the training step.

    Args:
        task: the model to train.
        replicas: the distribution that sums gradients.
        specs: a `Batch` of `tf.TensorSpec`.
        accumulation_steps: microbatches that each replica computes one after the other for one update.
        steps_per_execution: steps in one compiled call, which pay the overhead of a call once.

    Returns:
        A function from the batches of 1 to `steps_per_execution` steps to the outcome of each step. A step lists the
        batches of the local replicas, replica after replica. After an unsound step, outcomes are missing or undefined.

    Raises:
        ConfigurationError: the model has no trainable weights.
    """
    if not task.model.trainable_variables:
        raise ConfigurationError("The model has no trainable weights; there is nothing to train.")
    update = _make_update(task, jit_compile=replicas.local_update and task.jit_compile)
    num_microbatches = replicas.num_replicas * accumulation_steps

    def replica_step(batches: Sequence[Batch], is_sound: Any) -> tuple[list[Any], Any]:
        gradients, sums = _gradients(task, batches[0], num_microbatches)
        for batch in batches[1:]:
            with tf.control_dependencies(sums + gradients):  # sequential, as parallel microbatches would save no memory
                more_gradients, more_sums = _gradients(task, batch, num_microbatches)
            gradients = list(map(_added, gradients, more_gradients))
            sums = list(map(_added, sums, more_sums))
        # The loss depends on the weights, so the sums of the next step in this call come after this step's update.
        gradients, sums = replicas.sum(gradients, [*sums, _summed_flags(batches[0], sums[0])])
        if replicas.local_update:
            is_sound &= tf.math.is_finite(sums[0]) & (sums[-1][1] == 0)
            tf.cond(is_sound, lambda: update(gradients), lambda: tf.zeros(()))
        else:  # one process, which discards the weights when a step fails
            update(gradients)
        return sums, is_sound

    def replica_steps(batches: Sequence[Batch]) -> list[Any]:
        outputs, is_sound = [], tf.constant(True)
        for first in range(0, len(batches), accumulation_steps):
            sums, is_sound = replica_step(batches[first : first + accumulation_steps], is_sound)
            outputs += sums
        return outputs

    one_step = all_steps = _outcomes(replicas.compile(replica_steps, specs, num_batches=accumulation_steps))
    if steps_per_execution > 1:
        num_batches = accumulation_steps * steps_per_execution
        all_steps = _outcomes(replicas.compile(replica_steps, specs, num_batches=num_batches), steps_per_execution)

    def run(steps: Sequence[Sequence[Batch]]) -> list[Outcome]:
        if len(steps) == steps_per_execution:
            firsts = range(0, len(steps[0]), accumulation_steps)  # one a replica
            return all_steps([batch for f in firsts for step in steps for batch in step[f : f + accumulation_steps]])
        outcomes = []
        for step in steps:  # fewer steps remain at the end of an epoch
            outcomes += one_step(step)
            if not outcomes[-1].is_sound:
                break
        return outcomes

    return run


def _make_update(task: TrainableModel, *, jit_compile: bool) -> Callable[[Sequence[Any]], Any]:
    """Return the optimizer's update as a function of summed gradients, compiled by XLA if `jit_compile`."""
    variables = list(task.model.trainable_variables)

    def update(gradients: Sequence[Any]) -> Any:
        task.optimizer.apply(gradients, variables)
        return tf.zeros(())

    return tf.function(update, jit_compile=True, autograph=False) if jit_compile else update


def _gradients(task: TrainableModel, batch: Batch, num_microbatches: int) -> tuple[list[Any], list[Any]]:
    """Return one microbatch's gradients, and its weighted loss, examples and metric sums."""
    variables = task.model.trainable_variables
    with tf.GradientTape() as tape:
        outputs = call_model(task, batch, training=True)
        losses = example_losses(task.loss, batch.labels, outputs)
        weighted = tf.reduce_sum(example_weights(batch, losses) * losses)
        added = tf.add_n([tf.cast(loss, tf.float32) for loss in task.model.losses] or [tf.zeros(())])
        mean = weighted / tf.cast(batch.global_rows, weighted.dtype)
        loss = mean + added / num_microbatches
        loss = task.optimizer.scale_loss(loss)
    gradients = tape.gradient(loss, [v.value for v in variables])
    gradients = [_of_known_shape(g, v) for g, v in zip(gradients, variables, strict=True)]
    return gradients, [weighted, *_weight_and_metrics(task, batch, outputs)]


def make_evaluate_step(task: TrainableModel, replicas: Replicas, specs: Any) -> Step:
    """Compile the evaluation step: the same sums, without dropout and without an update."""

    def replica_step(batches: Sequence[Batch]) -> list[Any]:
        (batch,) = batches
        outputs = call_model(task, batch, training=False)
        losses = example_losses(task.loss, batch.labels, outputs)
        weighted = tf.reduce_sum(example_weights(batch, losses) * losses)
        sums = [weighted, *_weight_and_metrics(task, batch, outputs), _summed_flags(batch, weighted)]
        return replicas.sum([], sums)[1]

    evaluate = _outcomes(replicas.compile(replica_step, specs))
    return lambda batches: evaluate(batches)[0]


def _weight_and_metrics(task: TrainableModel, batch: Batch, outputs: Any) -> list[Any]:
    weights = example_weights(batch, outputs)
    return [tf.cast(batch.num_rows, tf.float32), *task.metrics.of_batch(batch.labels, outputs, weights)]


def _summed_flags(batch: Batch, weighted_loss: Any) -> Any:
    """Return float32 `[4]` in the order of `Outcome`, which replicas sum with the metrics."""
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
        return [Outcome(sums, *map(int, flags)) for *sums, flags in steps]

    return run


def mean_metrics(sums: Sequence[np.ndarray], metrics: MetricSums) -> dict[str, float]:
    """Return loss and metrics computed from a step's summed outputs."""
    return {"loss": float(sums[0]) / float(sums[1]), **metrics.results(sums[2:])}


def _of_known_shape(gradient: Any, variable: Any) -> Any:
    """Return a gradient as a tensor or as rows of the variable's shape; zeros if the loss ignores the variable."""
    if gradient is None:  # Keras skips a variable without a gradient, but all replicas must sum the same tensors
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
