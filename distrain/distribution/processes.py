"""One replica in each of many processes, over Horovod or MPI.

Decides: which tensors of a step travel, and in what form. Never: how they travel; the collectives do.

    distribution = Processes(collectives, world)             # the module distribution.horovod or distribution.mpi
    step = distribution.compile(replica_step, specs)

A step makes one fused reduction of all its tensors. Of a gradient that touches few rows of a large matrix
(`tf.IndexedSlices`: an embedding, the first layer over sparse rows) only the rows that any rank touched travel: the
ranks first agree on the union of the rows, then reduce these as one dense block, and all hold bitwise the same sum.
Where the union is nearly everything, the matrix travels as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import tensorflow as tf

from distrain.distribution.gradients import dense
from distrain.distribution.single import SingleDevice
from distrain.world import World

# Above this share of the rows, bringing them together and apart again is thought to cost what it saves: not measured.
LARGEST_UNION = 0.75


class Collectives(Protocol):
    """What a backend's module offers."""

    NAME: str
    VERSION: str

    def start(self, world: World, *, on_gpu: bool) -> None:
        """Join the other ranks, until the process exits."""

    def stop(self) -> None:
        """Leave them for good, a little earlier."""

    def grouped_sum(self, tensors: Sequence[Any], *, compression: str = "none") -> list[Any]:
        """Dense tensors summed over all ranks."""

    def maximum(self, tensor: Any) -> Any:
        """The greatest value at each place over all ranks."""

    def exchange(self, content: bytes) -> list[bytes]:
        """What each rank gave."""

    def broadcast(self, content: bytes) -> bytes:
        """Rank 0's content."""


class Processes(SingleDevice):
    """One replica in this process, on its one device, of as many as there are processes.

    Args:
        collectives: the backend, started.
        world: this process among all.
        compression: "fp16" to let gradients travel in half precision; "none".
    """

    def __init__(self, collectives: Collectives, world: World, *, compression: str = "none") -> None:
        self._collectives = collectives
        self._compression = compression
        self.name = collectives.NAME
        self.version = collectives.VERSION
        self.rank = world.rank
        self.num_processes = self.num_replicas = world.size
        self.local_replicas = range(world.rank, world.rank + 1)
        self.is_chief = world.rank == 0

    def sum(self, gradients: Sequence[Any], figures: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Gradients and figures summed over all ranks, gradients as dense tensors."""
        sparse = [g for g in gradients if isinstance(g, tf.IndexedSlices)]
        if not sparse:
            return self._dense_sum(gradients, figures)
        unions = self._unions(sparse)
        num_rows = sum(int(union.shape[0]) for union in unions)
        num_touched = tf.add_n([tf.reduce_sum(tf.cast(union, tf.int32)) for union in unions])
        sums = tf.cond(
            tf.cast(num_touched, tf.float32) < LARGEST_UNION * num_rows,
            lambda: self._sparse_sum(gradients, figures, unions),
            lambda: self._dense_sum(gradients, figures),
        )
        for total, gradient in zip(sums[0], gradients, strict=True):
            total.set_shape(gradient.shape)
        return sums

    def synchronize(self, variables: Sequence[Any]) -> None:
        """Make each variable the mean over all processes."""
        floats = [variable for variable in variables if tf.as_dtype(variable.dtype).is_floating]
        if floats and self.num_processes > 1:
            totals = self._collectives.grouped_sum([tf.convert_to_tensor(variable) for variable in floats])
            for variable, total in zip(floats, totals, strict=True):
                variable.assign(total / self.num_processes)

    def exchange(self, content: bytes) -> list[bytes]:
        """What each process gave, in rank order."""
        return self._collectives.exchange(content)

    def broadcast(self, content: bytes) -> bytes:
        """What the chief gave."""
        return self._collectives.broadcast(content)

    def _dense_sum(self, gradients: Sequence[Any], figures: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        return self._grouped_sum([dense(gradient) for gradient in gradients], figures)

    def _sparse_sum(
        self, gradients: Sequence[Any], figures: Sequence[Any], unions: Sequence[Any]
    ) -> tuple[list[Any], list[Any]]:
        rows = iter([tf.where(union) for union in unions])
        slots = iter([tf.cumsum(tf.cast(union, tf.int32)) - 1 for union in unions])
        rows_of = [next(rows) if isinstance(g, tf.IndexedSlices) else None for g in gradients]
        travelling = [
            gradient
            if rows is None
            else tf.math.unsorted_segment_sum(
                gradient.values, tf.gather(next(slots), gradient.indices), tf.shape(rows, tf.int64)[0]
            )
            for gradient, rows in zip(gradients, rows_of, strict=True)
        ]
        reduced, totals = self._grouped_sum(travelling, figures)
        sums = [
            total if rows is None else dense(tf.IndexedSlices(total, rows[:, 0], gradient.dense_shape))
            for gradient, rows, total in zip(gradients, rows_of, reduced, strict=True)
        ]
        return sums, totals

    def _unions(self, gradients: Sequence[Any]) -> list[Any]:
        """Of each matrix the rows that any rank touched, bool `[rows]`: one reduction of a byte a row."""
        touched = []
        for gradient in gradients:
            indices = tf.cast(gradient.indices, tf.int64)[:, tf.newaxis]
            none = tf.zeros(gradient.shape[:1], tf.uint8)
            touched.append(tf.tensor_scatter_nd_update(none, indices, tf.ones(tf.shape(indices)[:1], tf.uint8)))
        sizes = [int(mask.shape[0]) for mask in touched]
        return [mask > 0 for mask in tf.split(self._collectives.maximum(tf.concat(touched, axis=0)), sizes)]

    def _grouped_sum(self, gradients: Sequence[Any], figures: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        if self._compression == "none" or not gradients:
            totals = self._collectives.grouped_sum([*gradients, *figures])
            return totals[: len(gradients)], totals[len(gradients) :]
        reduced = self._collectives.grouped_sum(gradients, compression=self._compression)
        return reduced, self._collectives.grouped_sum(figures)  # figures are exact at any compression
