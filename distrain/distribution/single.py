"""One device, one process: no collectives.

Decides: that a step runs as it is. Never: anything else; it is the null object of distributing.

    SingleDevice().compile(replica_step, specs)([batch])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from distrain.distribution.packing import compile_packed


class SingleDevice:
    """The whole global batch on the device that TensorFlow chooses: the first GPU, else the CPU."""

    name = "single"
    num_replicas = 1
    local_replicas = range(1)
    is_chief = True
    jit_update = True

    def scope(self) -> AbstractContextManager[Any]:
        """No context is needed."""
        return nullcontext()

    def adopt(self, optimizer: Any) -> None:
        """Nothing to do: there is nothing to sum."""

    def compile(self, replica_step: Callable[[Any], Sequence[Any]], specs: Any) -> Callable[[Sequence[Any]], list[Any]]:
        """Compile the step for the one replica."""
        return compile_packed(lambda batches: list(replica_step(batches[0])), specs, num_batches=1)

    def sum(self, tensors: Sequence[Any]) -> list[Any]:
        """The tensors themselves."""
        return list(tensors)
