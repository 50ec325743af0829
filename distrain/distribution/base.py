"""The small interface that every way of distributing has.

Decides: what the step and the loop may ask for. Never: how it is done.

    step = distribution.compile(replica_step, specs)
    outputs = step(batches_of_the_local_replicas)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from distrain.batch import Memory
from distrain.cluster.process_group import ProcessGroup


class Distribution(Protocol):
    """Copies of one model on one or more devices, in one or more processes.

    Attributes:
        name: "single", "mirrored", "horovod" or "mpi".
        version: of the library that carries it, with its name.
        num_replicas: copies of the model over all processes, N.
        local_replicas: the replicas that this process feeds.
        group: the processes of the run.
        local_update: whether the optimizer's update takes place within a replica, so that XLA may compile it and a
            condition may hold it.
        prefetches: whether batches are made in a thread beside the steps. Not where a step computes on one core alone:
            the thread would take it from the step whenever it wakes, on each rank in another step, and all ranks would
            wait each time.
        gradient_memory: where gradients of few rows of a matrix are better given as these rows, the memory for them.
    """

    name: str
    version: str
    num_replicas: int
    local_replicas: range
    group: ProcessGroup
    local_update: bool
    prefetches: bool
    gradient_memory: Memory | None

    def scope(self) -> AbstractContextManager[Any]:
        """The context in which model and optimizer are built."""

    def disable_keras_all_reduce(self, optimizer: Any) -> None:
        """Make `optimizer.apply` take gradients that are summed over all replicas already."""

    def compile(
        self, replica_step: Callable[[Sequence[Any]], Sequence[Any]], specs: Any, *, num_batches: int = 1
    ) -> Callable[[Sequence[Any]], list[Any]]:
        """Compile a step: a function from a replica's batches to tensors that are equal on all replicas.

        Args:
            replica_step: called once per local replica, with `num_batches` structures of tensors; it may call
                `sum` once.
            specs: a structure of `tf.TensorSpec` like one batch.
            num_batches: batches that each replica is given in a step: several, where gradients are accumulated.

        Returns:
            A function from the arrays of `num_batches` batches per local replica, replica after replica, to the tensors
            of the first replica.
        """

    def sum(
        self, gradients: Sequence[Any], figures: Sequence[Any], *, used_at_once: bool = False
    ) -> tuple[list[Any], list[Any]]:
        """Inside a compiled step: each tensor summed over all replicas.

        Args:
            gradients: tensors, or `tf.IndexedSlices` of a known dense shape. They may travel in reduced precision where
                that was asked for.
            figures: tensors; these are exact.
            used_at_once: one operation alone uses the sums of the gradients, before the next call of `sum`, and takes
                their memory for nothing else, as XLA does: they may lie in memory of all ranks, which this writes to.

        Returns:
            The sums of the gradients, as dense tensors, and of the figures: bitwise the same on all replicas.
        """

    def synchronize(self, variables: Sequence[Any]) -> None:
        """Outside a compiled step: make variables that each process changes by itself the mean over all processes.

        For the moving averages of batch normalization, which are linear in what they average: the mean taken now is
        what they were had it been taken at each step. Variables that are not floats stay. All processes must call it.
        """
