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

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
import tensorflow as tf

from distrain.batch import Batch
from distrain.errors import ConfigurationError
from distrain.training.finite import BAD_GRADIENT, BAD_LOSS, all_finite
from distrain.training.forward import forward_pass
from distrain.training.gradients import (
    UpdatedReplicas,
    added,
    make_update_if,
    over_replicas,
    present,
    share_gradients,
)
from distrain.training.losses import Total
from distrain.training.stacking import stacked, unstacked
from distrain.training.task import TrainableModel


class Outcome(NamedTuple):
    """What a step returns, the same on every process.

    Attributes:
        sums: the loss times its count, the count, and the sums of the metrics' states, over the global batch.
        num_stops: replicas whose process received a request to stop.
        num_failures: replicas whose process cannot continue.
        bad_total: `BAD_GRADIENT` if the sum of the gradients over all replicas is not finite, else 0.
        bad_shares: for each device, `BAD_LOSS` or `BAD_GRADIENT` if its share of the step is not finite, else 0.
    """

    sums: list[np.ndarray]
    num_stops: int
    num_failures: int
    bad_total: int
    bad_shares: tuple[int, ...]

    @property
    def is_finite(self) -> bool:
        """Whether loss and gradient are finite."""
        return self.bad_total == 0 and not any(self.bad_shares)


Step = Callable[[Sequence[Batch]], Outcome]
Steps = Callable[[Sequence[Sequence[Batch]]], Iterable[Outcome]]


class Replicas(UpdatedReplicas, Protocol):
    """The part of `Distribution` that a step uses."""

    num_replicas: int
    replicas_per_device: int

    def compile(
        self, replica_step: Callable[[Sequence[Any]], Sequence[Any]], specs: Any, *, num_batches: int = 1
    ) -> Callable[[Sequence[Any]], list[Any]]:
        """Compile a step for all replicas."""

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
        steps_per_execution: steps in one compiled call, which pay the overhead of a call once.
        skips: whether training goes on after a step that is not finite, as if that step had not been.

    Returns:
        A function from the batches of 1 to `steps_per_execution` steps to the outcome of each step. A step lists the
        batches of the local replicas, replica after replica. After a step that ends training, outcomes are missing or
        undefined. If the replicas run ahead, only iterating over the outcomes waits for the device. The next call may
        begin before: it changes no weight if an earlier step ended training.

    Raises:
        ConfigurationError: the model has no trainable weights.
    """
    if not task.model.trainable_variables:
        raise ConfigurationError("The model has no trainable weights; there is nothing to train.")
    accumulation_steps *= replicas.replicas_per_device
    update_if = make_update_if(task, replicas)
    is_scaled = isinstance(task.optimizer, keras.optimizers.LossScaleOptimizer)  # it skips gradients by its own rule
    changed = task.model.non_trainable_variables if skips else []  # moving averages, which a skipped step must keep
    # Whether no earlier call ended training. In float32, as TensorFlow keeps few other types of variables on GPUs.
    goes_on = tf.Variable(1.0, trainable=False) if replicas.runs_ahead else None

    def replica_step(batches: Sequence[Batch], is_sound: Any) -> tuple[list[Any], Any]:
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
        return [*sums, flags], (is_sound & ~has_failed if skips else is_applied)

    def replica_steps(batches: Sequence[Batch]) -> list[Any]:
        outputs, is_sound = [], tf.constant(True) if goes_on is None else goes_on.read_value() > 0
        for first in range(0, len(batches), accumulation_steps):
            sums, is_sound = replica_step(batches[first : first + accumulation_steps], is_sound)
            outputs += sums
        if goes_on is not None:
            goes_on.assign(tf.cast(is_sound, tf.float32))
        return outputs

    one_step = all_steps = outcomes(replicas, replica_steps, specs, num_batches=accumulation_steps)
    if steps_per_execution > 1:
        num_batches = accumulation_steps * steps_per_execution
        all_steps = outcomes(replicas, replica_steps, specs, num_batches=num_batches, num_steps=steps_per_execution)

    def run(steps: Sequence[Sequence[Batch]]) -> Iterable[Outcome]:
        if len(steps) == steps_per_execution:
            firsts = range(0, len(steps[0]), accumulation_steps)  # one a device
            found = all_steps([batch for f in firsts for step in steps for batch in step[f : f + accumulation_steps]])
            return found if replicas.runs_ahead else list(found)
        read: list[Outcome] = []
        for step in steps:  # fewer steps remain at the end of an epoch
            read += one_step(step)
            if read[-1].num_failures or not (skips or read[-1].is_finite):
                break
        return read

    return run


def _own_gradients(task: TrainableModel, replicas: Replicas, batches: Sequence[Batch]) -> tuple[list[Any], list[Any]]:
    """Return the gradients and the sums of the microbatches of a replica, one computed after the other."""
    totals = _totals(task, replicas, batches)
    gradients, sums = share_gradients(task, batches[0], next(totals))
    for batch in batches[1:]:
        with tf.control_dependencies(sums + present(gradients)):  # parallel microbatches would save no memory
            more_gradients, more_sums = share_gradients(task, batch, next(totals))
        gradients = list(map(added, gradients, more_gradients))
        sums = list(map(added, sums, more_sums))
    return gradients, sums


def _totals(task: TrainableModel, replicas: Replicas, batches: Sequence[Batch]) -> Iterator[Total]:
    """Yield, for each microbatch of a replica, the function that sums a divisor of its losses over all microbatches."""
    if len(batches) == 1 or not task.has_divisors:
        for _ in batches:
            yield lambda divisor: replicas.forward_sum([divisor])[0]
        return
    # The first microbatch needs the divisors of the last, so all of them are computed beforehand.
    divisors: list[list[Any]] = []

    def record(divisor: Any) -> Any:
        divisors[-1].append(divisor)
        return divisor

    for batch in batches:
        divisors.append([])
        forward_pass(task, batch, training=False, total=record)
    own = [tf.add_n(of_loss) for of_loss in zip(*divisors, strict=True)]
    totals = replicas.forward_sum(own)
    for _ in batches:
        yield _in_turn(totals)


def _in_turn(totals: Sequence[Any]) -> Total:
    following = iter(totals)
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
        totals = _totals(task, replicas, batches)
        passes = [forward_pass(task, b, training=False, total=next(totals), of_outputs=of_outputs) for b in batches]
        own = [tf.add_n(values) for values in zip(*(share.sums for share in passes), strict=True)]
        return replicas.sum([], [*own, summed_flags(replicas, batches, own[0])])[1]

    num_batches = accumulation_steps * replicas.replicas_per_device
    evaluate = outcomes(replicas, replica_step, specs, num_batches=num_batches)
    return lambda batches: next(evaluate(batches))


def summed_flags(
    replicas: Replicas, batches: Sequence[Batch], weighted_loss: Any, gradients: Sequence[Any] = ()
) -> Any:
    """Return float32 `[3 + devices]` in the order of `Outcome`, which replicas sum with the metrics.

    Args:
        replicas: all replicas.
        batches: the microbatches of this device.
        weighted_loss: the loss of this device's share, times its count.
        gradients: the gradients of this device's share.
    """
    stop, failed, microbatch = tf.unstack(batches[0].step_flags, num=3)
    device = tf.cast(microbatch - 1, tf.int64) // len(batches)  # int32 would be computed on the host of a GPU
    bad_gradient = 0.0 if not gradients else tf.where(all_finite(gradients), 0.0, BAD_GRADIENT)
    bad = tf.where(tf.math.is_finite(weighted_loss), bad_gradient, BAD_LOSS)
    of_devices = tf.one_hot(device, replicas.num_replicas // replicas.replicas_per_device) * bad
    return tf.concat([[stop, failed, 0.0], of_devices], axis=0)


def outcomes(
    replicas: Replicas,
    replica_step: Callable[[Sequence[Any]], Sequence[Any]],
    specs: Any,
    *,
    num_batches: int,
    num_steps: int = 1,
) -> Callable[[Sequence[Batch]], Iterator[Outcome]]:
    """Compile a function from batches to the outcomes of `num_steps` steps, which wait for the device when iterated.

    Args:
        replicas: the distribution.
        replica_step: returns the sums of each step, the last of which are `summed_flags`.
        specs: a `Batch` of `tf.TensorSpec`.
        num_batches: batches of each replica.
        num_steps: steps of `replica_step`.
    """
    layout: list[tf.TensorSpec] = []

    def stacked_step(batches: Sequence[Any]) -> list[Any]:
        outputs = replica_step(batches)
        layout[:] = [tf.TensorSpec(output.shape, output.dtype) for output in outputs]
        return stacked(outputs) if replicas.runs_ahead else list(outputs)  # on a CPU, reading costs nothing

    compiled = replicas.compile(stacked_step, specs, num_batches=num_batches)

    def read(stacks: Sequence[Any]) -> Iterator[Outcome]:
        arrays = [stack.numpy() for stack in stacks]
        outputs = unstacked(arrays, layout) if replicas.runs_ahead else arrays
        width = len(outputs) // num_steps
        for first in range(0, len(outputs), width):
            *sums, flags = outputs[first : first + width]
            yield _outcome(sums, list(map(int, flags)))

    return lambda batches: read(compiled(batches))


def _outcome(sums: list[np.ndarray], flags: list[int]) -> Outcome:
    num_stops, num_failures, bad_total, *bad_shares = flags
    return Outcome(sums, num_stops, num_failures, bad_total, tuple(bad_shares))
