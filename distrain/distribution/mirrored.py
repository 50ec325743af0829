"""Several devices in one process, by `tf.distribute.MirroredStrategy`.

Decides: how N replicas in one process are run and summed. Never: how the data is cut; each replica gets its batch.

    distribution = Mirrored(["GPU:0", "GPU:1"])
    with distribution.scope():
        model = build_model()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf

from distrain.batch import Memory
from distrain.cluster.process_group import ProcessGroup, SingleProcess
from distrain.distribution.gradients import dense
from distrain.distribution.zero_copy import compile_zero_copy


class Mirrored:
    """One replica per device of this process.

    Args:
        devices: TensorFlow's names of the devices, such as "GPU:0".
        prefetches: see `base.Distribution`.
    """

    name = "mirrored"
    version = f"tensorflow {tf.__version__}"
    group: ProcessGroup = SingleProcess()
    local_update = False  # under a strategy the update runs in a cross-replica context
    gradient_memory: Memory | None = None

    def __init__(self, devices: Sequence[str], *, prefetches: bool = True) -> None:
        # TensorFlow numbers collectives from the same start in each strategy and tells them apart by number alone, so
        # that a second run in one process would meet leftovers of the first: each strategy gets numbers of its own.
        tf.distribute.MirroredStrategy._collective_key_base += 1000
        self._strategy = tf.distribute.MirroredStrategy(list(devices))
        self.num_replicas = self._strategy.num_replicas_in_sync
        self.local_replicas = range(self.num_replicas)
        self.prefetches = prefetches

    def scope(self) -> AbstractContextManager[Any]:
        """The strategy's scope, which makes variables mirrored."""
        return self._strategy.scope()

    def disable_keras_all_reduce(self, optimizer: Any) -> None:
        """Keep Keras from summing the gradients a second time, after it has clipped what it took for local ones."""
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        optimizer._all_reduce_sum_gradients = lambda grads_and_vars: grads_and_vars

    def compile(
        self, replica_step: Callable[[Sequence[Any]], Sequence[Any]], specs: Any, *, num_batches: int = 1
    ) -> Callable[[Sequence[Any]], list[Any]]:
        """Compile the step for all replicas as one function of all their batches."""

        def all_replicas(batches: list[Any]) -> list[Any]:
            def one_replica() -> list[Any]:
                replica = tf.distribute.get_replica_context().replica_id_in_sync_group
                first = int(tf.get_static_value(replica)) * num_batches
                return list(replica_step(batches[first : first + num_batches]))

            outputs = self._strategy.run(one_replica)
            return [self._strategy.experimental_local_results(output)[0] for output in outputs]

        return compile_zero_copy(all_replicas, specs, num_batches=self.num_replicas * num_batches)

    def sum(
        self, gradients: Sequence[Any], figures: Sequence[Any], *, used_at_once: bool = False
    ) -> tuple[list[Any], list[Any]]:
        """Each tensor summed over the replicas, in one grouped all-reduce per dtype, which is what can be grouped."""
        context = tf.distribute.get_replica_context()
        tensors = [*map(dense, gradients), *figures]
        sums = list(tensors)
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            numbers = [number for number, tensor in enumerate(tensors) if tensor.dtype == dtype]
            reduced = context.all_reduce(tf.distribute.ReduceOp.SUM, [tensors[number] for number in numbers])
            for number, total in zip(numbers, reduced, strict=True):
                sums[number] = total
        return sums[: len(gradients)], sums[len(gradients) :]

    def synchronize(self, variables: Sequence[Any]) -> None:
        """There is one process."""
