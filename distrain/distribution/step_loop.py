"""Many steps in one call of a compiled function: a loop in the graph, whose size does not grow with the steps.

Decides: how the batches of a call reach the loop, and how the steps follow each other. Never: what a step computes.

    loop = compile_step_loop(lambda batches: [vector], specs, num_batches=1)
    (vectors,) = loop([batches_of_step_1, batches_of_step_2])            # one row a step

A step begins once the step before it has ended. The batches wait in a queue of TensorFlow, which holds tensors without
a copy. Arguments of a call instead would be a part of the graph, so the graph would grow with the steps.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from distrain.distribution.device_prefetch import HOST, device_of_each, is_placed
from distrain.distribution.zero_copy import as_tensor

_numbers = itertools.count()


def compile_step_loop(
    function: Callable[[list[Any]], list[Any]], specs: Any, *, num_batches: int, devices: Sequence[str] = ()
) -> Callable[[Sequence[Sequence[Any]]], list[Any]]:
    """Compile a loop over steps.

    Args:
        function: `num_batches` batches of tensors -> one float32 vector, of the same length in each step.
        specs: a structure of `tf.TensorSpec` like one batch.
        num_batches: batches of one step, replica after replica.
        devices: the device of each replica, where batches wait; the host by default.

    Returns:
        A function from the batches of each step to `[steps, length of the vector]`, in a list. The caller must not
        change an array during a call.
    """
    queues = _Queues(specs, device_of_each(range(num_batches), devices))

    def steps(num_steps: Any) -> Any:
        def body(number: Any, vectors: Any) -> tuple[Any, Any]:
            (vector,) = function(queues.next_batches())
            return number + 1, vectors.write(number, vector)

        # The length of the vector is known only once the body is traced.
        vectors = tf.TensorArray(tf.float32, size=num_steps, element_shape=[None], infer_shape=False)
        _, vectors = tf.while_loop(
            lambda number, _: number < num_steps, body, (tf.constant(0), vectors), parallel_iterations=1
        )
        return vectors.stack()

    compiled = tf.function(steps, input_signature=[tf.TensorSpec([], tf.int32)], autograph=False)
    concrete = compiled.get_concrete_function()

    def call(batches_of_steps: Sequence[Sequence[Any]]) -> list[Any]:
        try:
            queues.add(batches_of_steps)
            return [concrete(tf.constant(len(batches_of_steps)))]
        except BaseException:
            queues.clear()  # else the next call would begin with these batches
            raise

    return call


class _Queues:
    """Queues of tensors, one on each device on which batches wait.

    Args:
        specs: a structure of `tf.TensorSpec` like one batch.
        devices: the device of each batch of a step.
    """

    def __init__(self, specs: Any, devices: Sequence[str]) -> None:
        self._specs, self._num_batches = specs, len(devices)
        self._signature = tf.nest.flatten(specs) * len(devices)
        self._name = f"distrain.steps.{next(_numbers)}"
        self._of_device: dict[str, list[int]] = defaultdict(list)  # numbers of tensors in the signature
        width = len(self._signature) // len(devices)
        for number, spec in enumerate(self._signature):
            on_device = is_placed(spec.shape.rank, spec.dtype.as_numpy_dtype)
            self._of_device[devices[number // width] if on_device else HOST].append(number)

    def add(self, batches_of_steps: Sequence[Sequence[Any]]) -> None:
        """Add the batches of each step to the queues, outside a compiled function."""
        flat = [[array for batch in batches for array in tf.nest.flatten(batch)] for batches in batches_of_steps]
        for device, numbers in self._of_device.items():
            with tf.device(device):
                for arrays in flat:
                    tf.raw_ops.Stage(values=[as_tensor(arrays[number]) for number in numbers], **self._queue(device))

    def next_batches(self) -> list[Any]:
        """Return the batches of the next step, inside a compiled function."""
        tensors: dict[int, Any] = {}
        for device, numbers in self._of_device.items():
            with tf.device(device):
                taken = tf.raw_ops.Unstage(dtypes=self._dtypes(numbers), **self._queue(device))
            for number, tensor in zip(numbers, taken, strict=True):
                tensor.set_shape(self._signature[number].shape)
                tensors[number] = tensor
        width = len(tensors) // self._num_batches
        parts = [[tensors[n] for n in range(first, first + width)] for first in range(0, len(tensors), width)]
        return [tf.nest.pack_sequence_as(self._specs, part) for part in parts]

    def clear(self) -> None:
        """Remove all batches, outside a compiled function."""
        for device, numbers in self._of_device.items():
            with tf.device(device):
                tf.raw_ops.StageClear(dtypes=self._dtypes(numbers), **self._queue(device))

    def _dtypes(self, numbers: Sequence[int]) -> list[tf.DType]:
        return [self._signature[number].dtype for number in numbers]

    def _queue(self, device: str) -> dict[str, Any]:
        return {"shared_name": f"{self._name}.{device}", "container": "", "capacity": 0, "memory_limit": 0}
