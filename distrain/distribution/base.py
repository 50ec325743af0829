"""The small interface that every way of distributing has.

Decides: what the step and the loop may ask for. Never: how a distribution does this.

    step = distribution.compile(replica_step, specs)
    outputs = step(batches_of_the_local_replicas)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from distrain.cluster.process_group import ProcessGroup


class Distribution(Protocol):
    """Copies of one model on one or more devices, in one or more processes.

    Attributes:
        name: "single", "mirrored", "horovod" or "mpi".
        version: name and version of the library that carries out the distribution.
        num_replicas: copies of the model over all processes, N.
        local_replicas: numbers of the replicas that this process feeds.
        group: the processes of the run.
        local_update: whether each replica updates its own weights, so that XLA may compile the update.
        replicas_per_device: replicas that compute in turn on one device.
        device_models: model of each replica's device, such as "NVIDIA H200" or "CPU"; `choose` sets the list.
        runs_ahead: whether the next step may begin before the host reads the sums of a step. True on GPUs, which
            compute while the host goes on.
        batch_devices: device of each local replica to which the next batch is copied while a step computes; empty on
            CPUs, which read batches where they are.
        prefetches: whether a thread makes batches while steps run. False if the step has one core alone: the thread
            would interrupt every rank in another step, and all ranks would wait each time.
    """

    name: str
    version: str
    num_replicas: int
    local_replicas: range
    group: ProcessGroup
    local_update: bool
    replicas_per_device: int
    device_models: Sequence[str]
    runs_ahead: bool
    batch_devices: Sequence[str]
    prefetches: bool

    def scope(self) -> AbstractContextManager[Any]:
        """Return the context in which the caller builds model and optimizer."""

    def disable_keras_all_reduce(self, optimizer: Any) -> None:
        """Make `optimizer.apply` expect gradients that are already summed over all replicas."""

    def compile(
        self, replica_step: Callable[[Sequence[Any]], Sequence[Any]], specs: Any, *, num_batches: int = 1
    ) -> Callable[[Sequence[Any]], list[Any]]:
        """Compile a step: a function from a replica's batches to tensors that are equal on all replicas.

        Args:
            replica_step: called once per local replica with `num_batches` structures of tensors; may call `sum` once
                per step, and `forward_sum` any number of times before.
            specs: a structure of `tf.TensorSpec` like one batch.
            num_batches: batches of each replica in one call; more than 1 accumulates gradients.

        Returns:
            A function from the arrays of `num_batches` batches per local replica, replica after replica, to the tensors
            of the first replica.
        """

    def compile_loop(
        self, replica_step: Callable[[Sequence[Any]], Sequence[Any]], specs: Any, *, num_batches: int = 1
    ) -> Callable[[Sequence[Sequence[Any]]], list[Any]]:
        """Compile a loop over steps, which runs as one call and begins a step once the step before it has ended.

        Args:
            replica_step: as in `compile`, but returns one float32 vector, of the same length in each step.
            specs: a structure of `tf.TensorSpec` like one batch.
            num_batches: batches of each replica in one step.

        Returns:
            A function from the arrays of the batches of each step, in the order of `compile`, to the vectors of the
            first replica: a list of one tensor `[steps, length]`. Any number of steps is possible in a call.
        """

    def update_if(
        self, is_sound: Any, update: Callable[[Sequence[Any]], Any], gradients: Sequence[Any], changed: Sequence[Any]
    ) -> None:
        """Update all replicas or none, inside a compiled step.

        Args:
            is_sound: bool scalar, equal on all replicas.
            update: updates a replica's weights by gradients; called if `is_sound`.
            gradients: gradients that are summed over all replicas.
            changed: pairs of a variable and the value that it gets unless `is_sound`.
        """

    def select_values(self, is_sound: Any, changed: Sequence[Any]) -> None:
        """Set variables back unless `is_sound`, inside a compiled step, without a condition that the host waits for.

        Args:
            is_sound: bool scalar, equal on all replicas.
            changed: pairs of a variable and the value that it gets unless `is_sound`.
        """

    def sum(self, gradients: Sequence[Any], metrics: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Sum each tensor over all replicas; call this inside a compiled step.

        Args:
            gradients: tensors, or `tf.IndexedSlices` of a known dense shape. Gradients may travel in half precision if
                the user asked for compression.
            metrics: tensors, which always travel in full precision.

        Returns:
            The sums of the gradients, as dense tensors, and of the metrics: bitwise the same on all replicas.
        """

    def forward_sum(self, tensors: Sequence[Any]) -> list[Any]:
        """Sum small tensors over all replicas inside the forward pass of a compiled step; gradients pass through.

        The gradient of a tensor is the sum over all replicas of the gradients of its total. Each call costs one
        collective forward and one backward. All replicas must call this with tensors of the same shapes.

        Args:
            tensors: floating-point tensors, which always travel in full precision.

        Returns:
            The sums, bitwise the same on all replicas.

        Raises:
            ConfigurationError: the call stands inside a loop or a condition of the step's graph.
        """

    def gather_rows(self, rows: Sequence[Any]) -> list[Any]:
        """Return the rows of all replicas, replica after replica, inside a compiled step.

        Args:
            rows: `tf.IndexedSlices` of a known dense shape; replicas may have different numbers of rows.
        """

    def copies(self, variable: Any) -> Sequence[Any]:
        """Return the variables that hold a Keras variable on the local replicas, outside a compiled step."""

    def synchronize(self, variables: Sequence[Any]) -> None:
        """Set each floating-point variable to its mean over all processes, outside a compiled step.

        All processes must call this. It serves the moving averages of batch normalization, which every process updates
        by itself. Moving averages are linear, so averaging once here equals averaging every step.
        """
