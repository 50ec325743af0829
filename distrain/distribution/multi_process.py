"""One replica in each of many processes, over Horovod or MPI.

Decides: where a step's sums are made: on the device, in memory that all ranks share, or on the host of each. Never: how
they are made (`device_sum.py`, `shared_sum.py`, `host_sum.py`), or how they travel; the collectives do.

    distribution = MultiProcess(collectives, group)           # the module distribution.horovod or distribution.mpi
    step = distribution.compile(replica_step, specs)

On CPUs a step leaves TensorFlow once, for one call that joins all tensors, sums them and parts them again; the same as
operations of the graph took nearly twice as long over MPI. Where all ranks are on one machine, tensors do not travel at
all: each rank reads what the others wrote (`benchmarks/RESULTS.md`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from distrain.aligned_memory import aligned_empty
from distrain.cluster.process_group import ProcessGroup
from distrain.cluster.world import World
from distrain.distribution.collectives.device_all_reduce import DeviceCollectives, device_all_reduce
from distrain.distribution.collectives.host_all_reduce import Gradient, HostCollectives, Rows, host_all_reduce
from distrain.distribution.collectives.shared_memory import SharedMemory
from distrain.distribution.collectives.shared_memory_all_reduce import Part, SharedSum, fits
from distrain.distribution.single import SingleDevice


class Collectives(HostCollectives, Protocol):
    """What a backend's module offers; where it sums on the device, also `DeviceCollectives`."""

    NAME: str
    VERSION: str

    def start(self, world: World, *, on_gpu: bool) -> ProcessGroup:
        """Join the other ranks, until the process exits; return their group."""

    def stop(self) -> None:
        """Leave them for good, a little earlier."""

    def on_device(self) -> DeviceCollectives | None:
        """The collectives of this process' GPU, if it has one and they can use it."""


class MultiProcess(SingleDevice):
    """One replica in this process, on its one device, of as many as there are processes.

    Args:
        collectives: the backend, started.
        group: all processes of the run.
        compression: "fp16" to let gradients travel in half precision; "none".
        shared: memory of all ranks, if they are on one machine.
        prefetches: see `base.Distribution`.
    """

    def __init__(
        self,
        collectives: Collectives,
        group: ProcessGroup,
        *,
        compression: str = "none",
        shared: SharedMemory | None = None,
        prefetches: bool = True,
    ) -> None:
        super().__init__(prefetches=prefetches)
        self.collectives = collectives
        self._shared = shared
        self._shared_sums: dict[tuple[Part, ...], SharedSum] = {}
        self.gradient_memory = shared.empty if shared else aligned_empty
        self._device_collectives = collectives.on_device()
        self._compression = compression
        self.name = collectives.NAME
        self.version = collectives.VERSION
        self.group = group
        self.num_replicas = group.size
        self.local_replicas = range(group.rank, group.rank + 1)

    def sum(
        self, gradients: Sequence[Any], figures: Sequence[Any], *, used_at_once: bool = False
    ) -> tuple[list[Any], list[Any]]:
        """Gradients and figures summed over all ranks, gradients as dense tensors."""
        if self._device_collectives:
            return device_all_reduce(self._device_collectives, gradients, figures, compression=self._compression)
        dtypes = [gradient.dtype for gradient in gradients]
        tensors = [*map(_at_least_single, gradients), *figures]
        heights = [int(g.shape[0]) if isinstance(g, tf.IndexedSlices) else None for g in gradients]
        shared_sum = self._sum_in_memory(tensors, len(gradients) if used_at_once else 0)
        fp16 = self._compression == "fp16"

        def reduce(*arrays: np.ndarray) -> list[np.ndarray]:
            given = iter(arrays)
            own: list[Gradient] = [
                next(given) if height is None else Rows(next(given), next(given), height) for height in heights
            ]
            if shared_sum:
                return shared_sum([*own, *given])
            return host_all_reduce(self.collectives, own, list(given), fp16=fp16)

        flat = [
            array
            for tensor in tensors
            for array in ((tensor.values, tensor.indices) if isinstance(tensor, tf.IndexedSlices) else (tensor,))
        ]
        sums = tf.numpy_function(reduce, flat, [tensor.dtype for tensor in tensors])
        for total, tensor in zip(sums, tensors, strict=True):
            total.set_shape(tensor.shape)
        return list(map(tf.cast, sums[: len(gradients)], dtypes)), sums[len(gradients) :]

    def _sum_in_memory(self, tensors: Sequence[Any], num_together: int) -> SharedSum | None:
        """The sum of such tensors in shared memory, if there is any, and room in it.

        Args:
            tensors: gradients and figures.
            num_together: how many of the first ones ranks may sum together.
        """
        if self._shared is None or not all(tensor.shape.is_fully_defined() for tensor in tensors):
            return None
        parts = tuple(
            Part(
                tuple(tensor.shape),
                tensor.dtype.as_numpy_dtype,
                is_rows=isinstance(tensor, tf.IndexedSlices),
                together=place < num_together,
            )
            for place, tensor in enumerate(tensors)
        )
        if parts not in self._shared_sums and fits(parts):  # steps of one call, and calls of one step, share theirs
            self._shared_sums[parts] = SharedSum(self._shared, parts)
        return self._shared_sums.get(parts)

    def synchronize(self, variables: Sequence[Any]) -> None:
        """Make each variable the mean over all processes."""
        floats = [variable for variable in variables if tf.as_dtype(variable.dtype).is_floating]
        if floats and self.group.size > 1:
            values = [_at_least_single(tf.convert_to_tensor(variable)).numpy() for variable in floats]
            totals = host_all_reduce(self.collectives, [], values)
            for variable, total in zip(floats, totals, strict=True):
                variable.assign(total / self.group.size)


def _at_least_single(tensor: Any) -> Any:
    """A tensor in float32, where it is in less, which neither MPI nor NumPy's compiled kernels know."""
    return tf.cast(tensor, tf.float32) if tensor.dtype in (tf.float16, tf.bfloat16) else tensor
