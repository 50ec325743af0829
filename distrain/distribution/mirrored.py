"""Several devices in one process, by `tf.distribute.MirroredStrategy`.

Decides: how one process runs N replicas and sums their tensors. Never: how the data is divided.

    distribution = Mirrored(["GPU:0", "GPU:1"])
    with distribution.scope():
        model = build_model()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf

from distrain.cluster.process_group import ProcessGroup, SingleProcess
from distrain.distribution.buckets import BUCKET_BYTES
from distrain.distribution.forward_sums import differentiable_sum, step_graph
from distrain.distribution.indexed_slices import dense
from distrain.distribution.step_loop import compile_step_loop
from distrain.distribution.zero_copy import compile_zero_copy
from distrain.keras_backend.private_names import (
    disable_gradient_all_reduce,
    keep_losses_undivided,
    require_private_hooks,
    reserve_collective_keys,
)


class Mirrored:
    """One replica per device of this process.

    Args:
        devices: TensorFlow's names of the devices, such as "GPU:0".
        prefetches: see `base.Distribution`.
    """

    name = "mirrored"
    version = f"tensorflow {tf.__version__}"
    group: ProcessGroup = SingleProcess()
    replicas_per_device = 1
    device_models: Sequence[str] = ("CPU",)
    runs_ahead = False
    batch_devices: Sequence[str] = ()
    local_update = False  # under a strategy Keras updates all replicas at once, in a cross-replica context

    def __init__(self, devices: Sequence[str], *, prefetches: bool = True) -> None:
        require_private_hooks()
        reserve_collective_keys()
        keep_losses_undivided()
        self._strategy = tf.distribute.MirroredStrategy(list(devices))
        self.num_replicas = self._strategy.num_replicas_in_sync
        self.local_replicas = range(self.num_replicas)
        self.prefetches = prefetches

    def scope(self) -> AbstractContextManager[Any]:
        """Return the strategy's scope, in which Keras creates mirrored variables."""
        return self._strategy.scope()

    def disable_keras_all_reduce(self, optimizer: Any) -> None:
        """Keep Keras from summing the gradients a second time."""
        disable_gradient_all_reduce(optimizer)

    def compile(
        self, replica_step: Callable[[Sequence[Any]], Sequence[Any]], specs: Any, *, num_batches: int = 1
    ) -> Callable[[Sequence[Any]], list[Any]]:
        """Compile the step of all replicas as one function of all batches."""
        all_replicas = self._all_replicas(replica_step, num_batches)
        return compile_zero_copy(all_replicas, specs, num_batches=self.num_replicas * num_batches)

    def compile_loop(
        self, replica_step: Callable[[Sequence[Any]], Sequence[Any]], specs: Any, *, num_batches: int = 1
    ) -> Callable[[Sequence[Sequence[Any]]], list[Any]]:
        """Compile a loop over the step of all replicas."""
        all_replicas = self._all_replicas(replica_step, num_batches)
        num_batches *= self.num_replicas
        return compile_step_loop(all_replicas, specs, num_batches=num_batches, devices=self.batch_devices)

    def _all_replicas(
        self, replica_step: Callable[[Sequence[Any]], Sequence[Any]], num_batches: int
    ) -> Callable[[list[Any]], list[Any]]:
        def all_replicas(batches: list[Any]) -> list[Any]:
            def one_replica() -> list[Any]:
                replica = tf.distribute.get_replica_context().replica_id_in_sync_group
                first = int(tf.get_static_value(replica)) * num_batches
                with step_graph():
                    return list(replica_step(batches[first : first + num_batches]))

            outputs = self._strategy.run(one_replica)
            return [self._strategy.experimental_local_results(output)[0] for output in outputs]

        return all_replicas

    def update_if(
        self, is_sound: Any, update: Callable[[Sequence[Any]], Any], gradients: Sequence[Any], changed: Sequence[Any]
    ) -> None:
        """Update all replicas, or set their variables of `changed` back.

        A strategy allows a condition around an update only where it leaves the replicas, in `merge_call`.
        """
        variables, values = [variable.value for variable, _ in changed], [value for _, value in changed]

        def across(strategy: Any, is_sound: Any, gradients: Sequence[Any], values: Sequence[Any]) -> None:
            def update_all() -> Any:
                strategy.run(update, args=(gradients,))
                return tf.zeros(())

            def set_back() -> Any:
                for variable, value in zip(variables, values, strict=True):
                    strategy.extended.update(variable, lambda own, old: own.assign(old), args=(value,))
                return tf.zeros(())

            tf.cond(strategy.experimental_local_results(is_sound)[0], update_all, set_back)

        tf.distribute.get_replica_context().merge_call(across, args=(is_sound, gradients, values))

    def select_values(self, is_sound: Any, changed: Sequence[Any]) -> None:
        """Set each variable of `changed` to its value unless `is_sound`, on all replicas."""
        variables, values = [variable.value for variable, _ in changed], [value for _, value in changed]

        def select(own: Any, old: Any, is_sound: Any) -> None:
            own.assign(tf.where(is_sound, own, old))

        def across(strategy: Any, is_sound: Any, values: Sequence[Any]) -> None:
            for variable, value in zip(variables, values, strict=True):
                strategy.extended.update(variable, select, args=(value, is_sound), group=False)

        tf.distribute.get_replica_context().merge_call(across, args=(is_sound, values))

    def sum(self, gradients: Sequence[Any], metrics: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Sum each tensor over the replicas, in one grouped all-reduce per dtype: TensorFlow groups no mixed dtypes.

        The gradients of the last layers come first, as TensorFlow reduces packs of tensors in the order given.
        """
        context = tf.distribute.get_replica_context()
        options = tf.distribute.experimental.CommunicationOptions(bytes_per_pack=BUCKET_BYTES)
        tensors = [*map(dense, reversed(gradients)), *metrics]
        sums = list(tensors)
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            numbers = [number for number, tensor in enumerate(tensors) if tensor.dtype == dtype]
            of_dtype = [tensors[number] for number in numbers]
            reduced = context.all_reduce(tf.distribute.ReduceOp.SUM, of_dtype, options=options)
            for number, total in zip(numbers, reduced, strict=True):
                sums[number] = total
        return sums[: len(gradients)][::-1], sums[len(gradients) :]

    def forward_sum(self, tensors: Sequence[Any]) -> list[Any]:
        """Sum each tensor over the replicas; gradients pass through."""
        return differentiable_sum(lambda given: self.sum([], given)[1], tensors)

    def gather_rows(self, rows: Sequence[Any]) -> list[Any]:
        """Return the rows of all replicas."""
        context = tf.distribute.get_replica_context()
        return [
            tf.IndexedSlices(context.all_gather(own.values, 0), context.all_gather(own.indices, 0), own.dense_shape)
            for own in rows
        ]

    def copies(self, variable: Any) -> Sequence[Any]:
        """Return the variable of each replica; a variable without mirrors is alone."""
        return list(self._strategy.experimental_local_results(variable.value))

    def synchronize(self, variables: Sequence[Any]) -> None:
        """Set each floating-point variable that differs on the devices to its mean over the devices."""
        for variable in variables:
            if tf.as_dtype(variable.dtype).is_floating:
                values = [value.numpy() for value in self._strategy.experimental_local_results(variable.value)]
                if any(value.tobytes() != values[0].tobytes() for value in values):
                    variable.assign(sum(values) / self.num_replicas)
