"""What a compiled step tells the host: the sums over the global batch, and the flags of all processes.

Decides: how the outputs of compiled steps become `Outcome` objects. Never: what a step computes.

    flags = summed_flags(replicas, batches, weighted_loss, gradients)       # inside a compiled step
    steps = outcomes(replicas, replica_step, specs, num_batches=1, in_loop=True)
    for outcome in steps([batches_of_step_1, batches_of_step_2]):
        outcome.sums                # [loss times count, count, sums of the metrics' states...]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from distrain.batch import Batch
from distrain.training.steps.finite import BAD_GRADIENT, BAD_LOSS, all_finite
from distrain.training.steps.stacking import stacked, unstacked


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


class CompilingReplicas(Protocol):
    """The part of `Distribution` that outcomes use."""

    num_replicas: int
    replicas_per_device: int
    runs_ahead: bool

    def compile(
        self, replica_step: Callable[[Sequence[Any]], Sequence[Any]], specs: Any, *, num_batches: int = 1
    ) -> Callable[[Sequence[Any]], list[Any]]:
        """Compile a step for all replicas."""

    def compile_loop(
        self, replica_step: Callable[[Sequence[Any]], Sequence[Any]], specs: Any, *, num_batches: int = 1
    ) -> Callable[[Sequence[Sequence[Any]]], list[Any]]:
        """Compile a loop over steps for all replicas."""


def summed_flags(
    replicas: CompilingReplicas, batches: Sequence[Batch], weighted_loss: Any, gradients: Sequence[Any] = ()
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
    replicas: CompilingReplicas,
    replica_step: Callable[[Sequence[Any]], Sequence[Any]],
    specs: Any,
    *,
    num_batches: int,
    in_loop: bool = False,
) -> Callable[[Sequence[Sequence[Batch]]], Iterator[Outcome]]:
    """Compile a function from the batches of steps to their outcomes, which waits for the device when iterated.

    Args:
        replicas: the distribution.
        replica_step: returns the sums of a step, the last of which are `summed_flags`.
        specs: a `Batch` of `tf.TensorSpec`.
        num_batches: batches of each replica in a step.
        in_loop: whether a call runs any number of steps, in a loop of the graph; else a call runs one step.
    """
    layout: list[tf.TensorSpec] = []
    is_stacked = in_loop or replicas.runs_ahead  # else reading costs nothing, on a CPU

    def outputs_of(batches: Sequence[Any]) -> list[Any]:
        outputs = replica_step(batches)
        layout[:] = [tf.TensorSpec(output.shape, output.dtype) for output in outputs]
        return [stacked(outputs)] if is_stacked else list(outputs)

    if in_loop:
        compiled = replicas.compile_loop(outputs_of, specs, num_batches=num_batches)
    else:
        one_step = replicas.compile(outputs_of, specs, num_batches=num_batches)

        def compiled(steps: Sequence[Sequence[Batch]]) -> list[Any]:
            (batches,) = steps
            return one_step(batches)

    def read(tensors: Sequence[Any]) -> Iterator[Outcome]:
        steps = [[tensor.numpy() for tensor in tensors]]
        if is_stacked:
            steps = [unstacked(vector, layout) for vector in np.atleast_2d(steps[0][0])]
        for *sums, flags in steps:
            yield _outcome(sums, list(map(int, flags)))

    return lambda steps: read(compiled(steps))


def _outcome(sums: list[np.ndarray], flags: list[int]) -> Outcome:
    num_stops, num_failures, bad_total, *bad_shares = flags
    return Outcome(sums, num_stops, num_failures, bad_total, tuple(bad_shares))
