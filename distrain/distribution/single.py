"""One device, one process: no collectives.

Decides: nothing; a step runs unchanged, in the null object of distribution. Never: communicates.

    SingleDevice().compile(replica_step, specs)([batch])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import tensorflow as tf

from distrain.cluster.process_group import ProcessGroup, SingleProcess
from distrain.distribution.forward_sums import step_graph
from distrain.distribution.indexed_slices import dense
from distrain.distribution.step_loop import compile_step_loop
from distrain.distribution.zero_copy import compile_zero_copy


class SingleDevice:
    """The whole global batch on the device that TensorFlow chooses: the first GPU, else the CPU.

    Args:
        prefetches: see `base.Distribution`.
    """

    name = "single"
    version = f"tensorflow {tf.__version__}"
    num_replicas = 1
    local_replicas = range(1)
    group: ProcessGroup = SingleProcess()
    local_update = True
    replicas_per_device = 1
    device_models: Sequence[str] = ("CPU",)
    runs_ahead = False
    batch_devices: Sequence[str] = ()

    def __init__(self, *, prefetches: bool = True) -> None:
        self.prefetches = prefetches

    def scope(self) -> AbstractContextManager[Any]:
        """Return a context that does nothing."""
        return nullcontext()

    def disable_keras_all_reduce(self, optimizer: Any) -> None:
        """Do nothing, as Keras sums nothing on one device."""

    def compile(
        self, replica_step: Callable[[Sequence[Any]], Sequence[Any]], specs: Any, *, num_batches: int = 1
    ) -> Callable[[Sequence[Any]], list[Any]]:
        """Compile the step for a single replica."""
        return compile_zero_copy(_within_step(replica_step), specs, num_batches=num_batches)

    def compile_loop(
        self, replica_step: Callable[[Sequence[Any]], Sequence[Any]], specs: Any, *, num_batches: int = 1
    ) -> Callable[[Sequence[Sequence[Any]]], list[Any]]:
        """Compile a loop over the step for a single replica."""
        return compile_step_loop(_within_step(replica_step), specs, num_batches=num_batches, devices=self.batch_devices)

    def update_if(
        self, is_sound: Any, update: Callable[[Sequence[Any]], Any], gradients: Sequence[Any], changed: Sequence[Any]
    ) -> None:
        """Update the replica, or set the variables of `changed` back."""

        def set_back() -> Any:
            for variable, value in changed:
                variable.assign(value)
            return tf.zeros(())

        tf.cond(is_sound, lambda: update(gradients), set_back)

    def select_values(self, is_sound: Any, changed: Sequence[Any]) -> None:
        """Set each variable of `changed` to its value unless `is_sound`."""
        for variable, value in changed:
            variable.assign(tf.where(is_sound, variable.value, value))

    def sum(self, gradients: Sequence[Any], metrics: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Return the same tensors, gradients as dense tensors."""
        return [dense(gradient) for gradient in gradients], list(metrics)

    def forward_sum(self, tensors: Sequence[Any]) -> list[Any]:
        """Return the same tensors."""
        return list(tensors)

    def gather_rows(self, rows: Sequence[Any]) -> list[Any]:
        """Return the same rows."""
        return list(rows)

    def copies(self, variable: Any) -> Sequence[Any]:
        """Return the variable alone, as there is one replica."""
        return [variable]

    def synchronize(self, variables: Sequence[Any]) -> None:
        """Do nothing, as there is one process."""


def _within_step(replica_step: Callable[[Sequence[Any]], Sequence[Any]]) -> Callable[[list[Any]], list[Any]]:
    def one_replica(batches: Sequence[Any]) -> list[Any]:
        with step_graph():
            return list(replica_step(batches))

    return one_replica
