"""The small interface that every way of distributing has.

Decides: what the step and the loop may ask for. Never: how it is done.

    step = distribution.compile(replica_step, specs)
    outputs = step([batch_of_each_local_replica])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Distribution(Protocol):
    """Copies of one model on one or more devices, in one or more processes.

    Attributes:
        name: "single", "mirrored", ...
        num_replicas: copies of the model over all processes, N.
        local_replicas: the replicas that this process feeds.
        is_chief: whether this process writes files and prints.
        jit_update: whether the optimizer's update may be compiled by XLA (it may hold no collective).
    """

    name: str
    num_replicas: int
    local_replicas: range
    is_chief: bool
    jit_update: bool

    def scope(self) -> AbstractContextManager[Any]:
        """The context in which model and optimizer are built."""

    def adopt(self, optimizer: Any) -> None:
        """Make `optimizer.apply` take gradients that are summed over all replicas already."""

    def compile(self, replica_step: Callable[[Any], Sequence[Any]], specs: Any) -> Callable[[Sequence[Any]], list[Any]]:
        """Compile a step: a function from one replica's batch to tensors that are equal on all replicas.

        Args:
            replica_step: called once per local replica, with tensors of `specs`; it may call `sum`.
            specs: a structure of `tf.TensorSpec` like one replica's batch.

        Returns:
            A function from one batch of arrays per local replica to the tensors of the first.
        """

    def sum(self, tensors: Sequence[Any]) -> list[Any]:
        """Inside a compiled step: each tensor summed over all replicas."""
