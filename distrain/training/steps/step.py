"""The compiled train and evaluate steps: shares of a global batch, global gradient, one grouped reduction.

Decides: how the shares of a global batch become one step. Never: what a share computes (`forward.py`), which batch a
step gets, when a step runs, or how replicas communicate.

    train = make_train_steps(task, distribution, specs)
    (outcome,) = train([batches_of_the_local_replicas])
    outcome.sums                # [loss times count, count, sums of the metrics' states...]

The loss and the gradient of a step are sums over the shares, and equal what Keras computes for the joined global batch.

`Batch.step_flags` travel with the gradients, so that all processes know the flags after the same step. A step whose
loss or gradient is not finite on some replica leaves the weights unchanged. The later steps of the same call do so too,
unless the run skips such steps. After a failure of a process, all steps of a call leave the weights unchanged.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import keras
import tensorflow as tf

from distrain.batch import Batch
from distrain.errors import ConfigurationError
from distrain.keras_backend.private_names import all_layers
from distrain.training.steps.finite import BAD_GRADIENT, all_finite
from distrain.training.steps.forward import forward_pass
from distrain.training.steps.gradients import (
    UpdatedReplicas,
    added,
    make_update_if,
    over_replicas,
    present,
    with_known_shapes,
)
from distrain.training.steps.losses import Total
from distrain.training.steps.model_jit import make_share_gradients
from distrain.training.steps.outcome import CompilingReplicas, Outcome, outcomes, summed_flags
from distrain.training.steps.task import TrainableModel

Step = Callable[[Sequence[Batch]], Outcome]
Steps = Callable[[Sequence[Sequence[Batch]]], Iterable[Outcome]]


class Replicas(UpdatedReplicas, CompilingReplicas, Protocol):
    """The part of `Distribution` that a step uses."""

    def sum(self, gradients: Sequence[Any], metrics: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Sum tensors over all replicas."""

    def gather_rows(self, rows: Sequence[Any]) -> list[Any]:
        """Return the rows of all replicas, for each `tf.IndexedSlices`."""

    def forward_sum(self, tensors: Sequence[Any]) -> list[Any]:
        """Sum small tensors of the forward pass over all replicas."""


def make_train_steps(
    task: TrainableModel,
    replicas: Replicas,
    specs: Any,
    *,
    accumulation_steps: int = 1,
    steps_per_execution: int = 1,
    skips: bool = False,
) -> Steps:
    """Compile the training step.

    Args:
        task: the model to train.
        replicas: the distribution that sums gradients.
        specs: a `Batch` of `tf.TensorSpec`.
        accumulation_steps: microbatches that each replica computes one after the other for one update.
        steps_per_execution: most steps in one compiled call, which pay the overhead of a call once.
        skips: whether training goes on after a step that is not finite, as if that step had not been.

    Returns:
        A function from the batches of 1 to `steps_per_execution` steps to the outcome of each step. A step lists the
        batches of the local replicas, replica after replica. After a step that ends training, outcomes are undefined.
        If the replicas run ahead, only iterating over the outcomes waits for the device. The next call may begin
        before. With several steps in a call or ahead, no step changes weights after a step that ended training.

    Raises:
        ConfigurationError: the model has no trainable weights.
    """
    if not task.model.trainable_variables:
        raise ConfigurationError("The model has no trainable weights; there is nothing to train.")
    accumulation_steps *= replicas.replicas_per_device
    update_if = make_update_if(task, replicas)
    is_scaled = isinstance(task.optimizer, keras.optimizers.LossScaleOptimizer)  # it skips gradients by its own rule
    changed = task.model.non_trainable_variables if skips else []  # moving averages, which a skipped step must keep
    # Whether no earlier step ended training. In float32, as TensorFlow keeps few other types of variables on GPUs.
    is_read_late = replicas.runs_ahead or steps_per_execution > 1
    goes_on = tf.Variable(1.0, trainable=False) if is_read_late else None

    def replica_step(batches: Sequence[Batch]) -> list[Any]:
        is_sound = tf.constant(True) if goes_on is None else goes_on.read_value() > 0
        before = [(variable, tf.identity(variable.value)) for variable in changed]
        gradients, sums = _own_gradients(task, replicas, batches)
        # The loss depends on the weights, so the sums of the next step in this call come after this step's update.
        checked = [] if is_scaled else present(gradients)
        own_flags = summed_flags(replicas, batches, sums[0], checked)
        gradients, (*sums, flags) = over_replicas(task, replicas, gradients, [*sums, own_flags])
        if replicas.num_replicas > replicas.replicas_per_device and not is_scaled:  # finite gradients may overflow
            is_bad = tf.cast(~all_finite(present(gradients)), tf.float32)
            flags += tf.one_hot(2, int(flags.shape[0])) * BAD_GRADIENT * is_bad
        has_failed, is_finite = flags[1] > 0, tf.reduce_all(flags[2:] == 0)
        is_applied = is_sound & ~has_failed & is_finite
        update_if(is_applied, gradients, before)
        if goes_on is not None:
            goes_on.assign(tf.cast(is_sound & ~has_failed if skips else is_applied, tf.float32))
        return [*sums, flags]

    in_loop = steps_per_execution > 1
    train = outcomes(replicas, replica_step, specs, num_batches=accumulation_steps, in_loop=in_loop)
    if replicas.runs_ahead:
        return train
    return lambda steps: list(train(steps))


def _own_gradients(task: TrainableModel, replicas: Replicas, batches: Sequence[Batch]) -> tuple[list[Any], list[Any]]:
    """Return the gradients and the sums of the microbatches of a replica, one computed after the other."""
    total, share_gradients = _total(task, replicas, batches), make_share_gradients(task)
    own_gradients = _traced_once(lambda batch: share_gradients(task, batch, total), task, replicas, batches)
    gradients, sums = own_gradients(batches[0])
    for batch in batches[1:]:
        with tf.control_dependencies(sums + present(gradients)):  # parallel microbatches would save no memory
            more_gradients, more_sums = own_gradients(batch)
        gradients = list(map(added, gradients, more_gradients))
        sums = list(map(added, sums, more_sums))
    return with_known_shapes(task, gradients), sums


def _traced_once(
    function: Callable[[Batch], Any], task: TrainableModel, replicas: Replicas, batches: Sequence[Batch]
) -> Callable[..., Any]:
    """Return a function of a microbatch that costs one tracing for all microbatches of a replica.

    No inner function may sum over replicas, as synchronized layers do, or update an average across devices, as a
    strategy of several devices does. TensorFlow then optimizes one function, in place of a copy for each microbatch.
    """
    is_joined = any(getattr(layer, "synchronized", False) for layer in all_layers(task.model))
    if len(batches) == 1 or is_joined or not replicas.local_update:
        return function
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})


def _total(task: TrainableModel, replicas: Replicas, batches: Sequence[Batch]) -> Total:
    """Return the function that sums a divisor of the losses of a microbatch over all microbatches of the step."""
    is_inside = len(batches) == 1 and not (task.jit_model and replicas.num_replicas > 1)  # XLA calls no collective
    if is_inside or not task.has_divisors:
        return lambda divisor: replicas.forward_sum([divisor])[0]

    # The first microbatch needs the divisors of the last, so all of them are computed beforehand.
    def own_divisors(batch: Batch) -> list[Any]:
        divisors: list[Any] = []

        def record(divisor: Any) -> Any:
            divisors.append(divisor)
            return divisor

        forward_pass(task, batch, training=False, total=record)
        return divisors

    of_batches = map(_traced_once(own_divisors, task, replicas, batches), batches)
    totals = replicas.forward_sum([tf.add_n(of_loss) for of_loss in zip(*of_batches, strict=True)])
    following = itertools.cycle(totals)  # each microbatch asks for all of them in turn
    return lambda divisor: next(following)


def make_evaluate_step(
    task: TrainableModel,
    replicas: Replicas,
    specs: Any,
    *,
    accumulation_steps: int = 1,
    of_outputs: Callable[[Any], Any] = lambda outputs: outputs,
) -> Step:
    """Compile the evaluation step: the same sums, without dropout and without an update.

    Args:
        task: the model to evaluate.
        replicas: the distribution that sums.
        specs: a `Batch` of `tf.TensorSpec`.
        accumulation_steps: microbatches of each replica in a step.
        of_outputs: changes the model's outputs before the loss sees them.
    """

    def replica_step(batches: Sequence[Batch]) -> list[Any]:
        total = _total(task, replicas, batches)

        def sums_of(batch: Batch) -> list[Any]:
            return forward_pass(task, batch, training=False, total=total, of_outputs=of_outputs).sums

        of_batches = map(_traced_once(sums_of, task, replicas, batches), batches)
        own = [tf.add_n(values) for values in zip(*of_batches, strict=True)]
        return replicas.sum([], [*own, summed_flags(replicas, batches, own[0])])[1]

    num_batches = accumulation_steps * replicas.replicas_per_device
    evaluate = outcomes(replicas, replica_step, specs, num_batches=num_batches)
    return lambda batches: next(evaluate([batches]))
