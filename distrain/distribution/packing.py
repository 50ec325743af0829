"""Few arrays instead of many on the way into a compiled step.

Decides: which fields of a batch travel together, and how a step is called. Never: changes a value.

    step = compile_packed(lambda batches: [...], specs, num_batches=1)
    outputs = step([batch_of_arrays])

A call of a `tf.function` costs Python time per argument, and a batch of sparse rows has a dozen small ones: a sixth of
a step at batch 128. Scalars and one-dimensional fields of one type therefore travel as one array, to the concrete
function; fields of more dimensions, which may be large, travel as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def compile_packed(
    function: Callable[[list[Any]], list[Any]], specs: Any, *, num_batches: int
) -> Callable[[Sequence[Any]], list[Any]]:
    """Compile a function of batches.

    Args:
        function: `num_batches` batches of tensors -> tensors.
        specs: a structure of `tf.TensorSpec` like one batch, of which only first dimensions may be unknown.
        num_batches: batches it is called with.

    Returns:
        The same function on batches of arrays.
    """
    packing = _Packing(specs)
    width = len(packing.signature)

    def unpacked(*tensors: Any) -> list[Any]:
        packed = [tensors[start : start + width] for start in range(0, num_batches * width, width)]
        return function([packing.unpack(part) for part in packed])

    signature = packing.signature * num_batches
    concrete = tf.function(unpacked, input_signature=signature, autograph=False).get_concrete_function()

    def call(batches: Sequence[Any]) -> list[Any]:
        return concrete(*(tf.constant(array) for batch in batches for array in packing.pack(batch)))

    return call


class _Packing:
    """How batches of a certain structure are packed.

    Args:
        specs: a structure of `tf.TensorSpec`, of which only the first dimension may be unknown.
    """

    def __init__(self, specs: Any) -> None:
        self._specs = specs
        flat = tf.nest.flatten(specs)
        small = [number for number, spec in enumerate(flat) if spec.shape.rank <= 1]
        dtypes = dict.fromkeys(flat[number].dtype for number in small)
        self._groups = [[number for number in small if flat[number].dtype == dtype] for dtype in dtypes]
        self._large = [number for number in range(len(flat)) if number not in small]
        self._scalars = {number for number in small if flat[number].shape.rank == 0}
        self.signature = [
            tf.TensorSpec((len(small),), tf.int32),
            *(tf.TensorSpec((None,), dtype) for dtype in dtypes),
            *(flat[number] for number in self._large),
        ]

    def pack(self, batch: Any) -> list[np.ndarray]:
        """The arrays that travel: the sizes of the small fields, these joined by type, and the large fields."""
        flat = [np.asarray(array) for array in tf.nest.flatten(batch)]
        groups = [[flat[number].reshape(-1) for number in group] for group in self._groups]
        sizes = np.array([len(array) for group in groups for array in group], np.int32)
        return [sizes, *map(np.concatenate, groups), *(flat[number] for number in self._large)]

    def unpack(self, tensors: Sequence[Any]) -> Any:
        """The batch again, from tensors of `signature`."""
        sizes, *joined = tensors[: 1 + len(self._groups)]
        flat = dict(zip(self._large, tensors[1 + len(self._groups) :], strict=True))
        first = 0
        for group, fields in zip(self._groups, joined, strict=True):
            parts = tf.split(fields, sizes[first : first + len(group)], num=len(group))
            for number, part in zip(group, parts, strict=True):
                flat[number] = tf.reshape(part, ()) if number in self._scalars else part
            first += len(group)
        return tf.nest.pack_sequence_as(self._specs, [flat[number] for number in range(len(flat))])
