"""One replica in each of many processes, over Horovod or MPI.

Decides: whether a step's sums are computed on the device or on the host. Never: how (`device_all_reduce.py`,
`host_all_reduce.py`), or how buffers travel; the collectives do.

    distribution = MultiProcess(collectives, group)           # the module collectives.horovod or collectives.mpi
    step = distribution.compile(replica_step, specs)

On CPUs a step leaves TensorFlow once, for one call that packs all tensors, sums them and unpacks them again. The same
operations in the graph took nearly twice as long over MPI. Only gradients of more than one bucket take several calls.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from distrain.cluster.process_group import ProcessGroup
from distrain.cluster.world import World
from distrain.distribution.buckets import buckets, dense_bytes
from distrain.distribution.collectives.background_sums import BackgroundSums
from distrain.distribution.collectives.device_all_reduce import DeviceCollectives, device_all_reduce
from distrain.distribution.collectives.host_all_reduce import Gradient, GradientRows, HostCollectives, host_all_reduce
from distrain.distribution.forward_sums import differentiable_sum
from distrain.distribution.single import SingleDevice


class Collectives(HostCollectives, Protocol):
    """The interface of a backend's module."""

    NAME: str
    VERSION: str

    def start(self, world: World) -> ProcessGroup:
        """Join the other ranks until the process exits, and return the group."""

    def check_gpu_support(self) -> None:
        """Refuse GPUs, or warn, if the backend does not carry gradients between GPUs; all ranks have one."""

    def stop(self) -> None:
        """Leave the other ranks for good before the process exits."""

    def on_device(self) -> DeviceCollectives | None:
        """Return the collectives of this process's GPU; None if there is no GPU or the backend cannot use it."""


class MultiProcess(SingleDevice):
    """One replica in each process, on the process's one device.

    Args:
        collectives: the started backend.
        group: all processes of the run.
        compression: "fp16" sends gradients in half precision; "none" in their own.
        host_collectives: sum host buffers in place of `collectives`, as ranks of one machine do in shared memory.
        prefetches: see `base.Distribution`.
    """

    def __init__(
        self,
        collectives: Collectives,
        group: ProcessGroup,
        *,
        compression: str = "none",
        host_collectives: HostCollectives | None = None,
        prefetches: bool = True,
    ) -> None:
        super().__init__(prefetches=prefetches)
        self.collectives = collectives
        self._host_collectives = host_collectives or collectives
        self._shares_memory = host_collectives is not None
        self._device_collectives = collectives.on_device()
        self._compression = compression
        self.name = collectives.NAME
        self.version = collectives.VERSION
        self.group = group
        self.num_replicas = group.size
        self.local_replicas = range(group.rank, group.rank + 1)

    def sum(self, gradients: Sequence[Any], metrics: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Sum gradients and metrics over all ranks; return gradients as dense tensors."""
        if self._device_collectives:
            return device_all_reduce(self._device_collectives, gradients, metrics, compression=self._compression)
        dtypes = [gradient.dtype for gradient in gradients]
        sums, totals = self._sum_on_host(list(map(_at_least_single, gradients)), metrics)
        return list(map(tf.cast, sums, dtypes)), totals

    def _sum_on_host(self, gradients: Sequence[Any], metrics: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Sum tensors of at least single precision; all buckets but the last travel while gradients are computed.

        TensorFlow calls the functions that leave a graph in the order of the trace. So all ranks start alike.
        """
        whole = [list(range(len(gradients)))]  # in shared memory, nothing travels that a computation could hide
        *first, last = whole if self._shares_memory else buckets(dense_bytes(gradients))
        in_background = BackgroundSums()
        for bucket in first:
            own = [gradients[number] for number in bucket]
            reduce = partial(in_background.start, self._reduction(own))
            tf.numpy_function(reduce, _arrays_of(own), [])
        own = [gradients[number] for number in last]
        reduce_last = self._reduction(own)

        def finish(*arrays: np.ndarray) -> list[np.ndarray]:
            if not first:
                return reduce_last(*arrays)
            in_background.start(reduce_last, *arrays)
            return [total for sums in in_background.finish() for total in sums]

        of_first = [number for bucket in first for number in bucket]
        tensors = [*(gradients[number] for number in [*of_first, *last]), *metrics]
        totals = tf.numpy_function(finish, _arrays_of([*own, *metrics]), [tensor.dtype for tensor in tensors])
        for total, tensor in zip(totals, tensors, strict=True):
            total.set_shape(tensor.shape)
        sums = dict(zip([*of_first, *last], totals, strict=False))
        return [sums[number] for number in range(len(gradients))], totals[len(gradients) :]

    def _reduction(self, gradients: Sequence[Any]) -> Callable[..., list[np.ndarray]]:
        """Return a function that sums over all ranks the arrays of `gradients`, and of any metrics after them."""
        heights = [int(g.shape[0]) if isinstance(g, tf.IndexedSlices) else None for g in gradients]
        fp16 = self._compression == "fp16"

        def reduce(*arrays: np.ndarray) -> list[np.ndarray]:
            given = iter(arrays)
            own: list[Gradient] = [
                next(given) if height is None else GradientRows(next(given), next(given), height) for height in heights
            ]
            return host_all_reduce(self._host_collectives, own, list(given), fp16=fp16)

        return reduce

    def forward_sum(self, tensors: Sequence[Any]) -> list[Any]:
        """Sum tensors over all ranks; gradients pass through."""
        sums = differentiable_sum(lambda given: self.sum([], given)[1], list(map(_at_least_single, tensors)))
        return [tf.cast(total, tensor.dtype) for total, tensor in zip(sums, tensors, strict=True)]

    def gather_rows(self, rows: Sequence[Any]) -> list[Any]:
        """Return the rows of all ranks."""
        tensors = [tensor for own in rows for tensor in (own.values, own.indices)]
        if self._device_collectives:
            joined = [self._device_collectives.gather(tensor) for tensor in tensors]
        else:
            joined = [self._gather_on_host(tensor) for tensor in tensors]
        return [
            tf.IndexedSlices(values, indices, own.dense_shape)
            for own, values, indices in zip(rows, joined[::2], joined[1::2], strict=True)
        ]

    def _gather_on_host(self, tensor: Any) -> Any:
        own = _at_least_single(tensor)

        def gather(array: np.ndarray) -> np.ndarray:
            contents = self.group.all_gather_bytes(array.tobytes())
            return np.frombuffer(b"".join(contents), array.dtype).reshape(-1, *array.shape[1:])

        joined = tf.numpy_function(gather, [own], own.dtype)
        joined.set_shape((None, *own.shape[1:]))
        return tf.cast(joined, tensor.dtype)

    def synchronize(self, variables: Sequence[Any]) -> None:
        """Set each floating-point variable that differs between processes to its mean over all processes."""
        floats = [variable for variable in variables if tf.as_dtype(variable.dtype).is_floating]
        if not floats or self.group.size == 1:
            return
        # The mean of N equal numbers may differ from them in the last bit, so equal variables stay as they are.
        digests = json.dumps([_digest(variable) for variable in floats]).encode()
        of_ranks = map(json.loads, self.group.all_gather_bytes(digests))
        floats = [variable for variable, *of_one in zip(floats, *of_ranks, strict=True) if len(set(of_one)) > 1]
        if floats:
            values = [_at_least_single(tf.convert_to_tensor(variable)).numpy() for variable in floats]
            totals = host_all_reduce(self._host_collectives, [], values)
            for variable, total in zip(floats, totals, strict=True):
                variable.assign(total / self.group.size)


def _arrays_of(tensors: Sequence[Any]) -> list[Any]:
    """Return tensors, of `tf.IndexedSlices` their values and indices."""
    return [
        array
        for tensor in tensors
        for array in ((tensor.values, tensor.indices) if isinstance(tensor, tf.IndexedSlices) else (tensor,))
    ]


def _digest(variable: Any) -> str:
    return hashlib.sha256(tf.convert_to_tensor(variable).numpy().tobytes()).hexdigest()


def _at_least_single(tensor: Any) -> Any:
    """Cast half precision to float32, as neither MPI nor the compiled kernels know half precision."""
    return tf.cast(tensor, tf.float32) if tensor.dtype in (tf.float16, tf.bfloat16) else tensor
