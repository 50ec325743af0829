"""Arrays as arguments of a compiled step, without a copy.

Decides: how arrays become a step's tensors. Never: changes a value.

    step = compile_zero_copy(lambda batches: [...], specs, num_batches=1)
    outputs = step([batch_of_arrays])

`tf.constant` copies an array in 8 us; DLPack passes an aligned array in 1 us. A batch has about ten arrays, in a step
of 3 ms. Arrays that TensorFlow cannot read in place are copied. TensorFlow never writes to memory that another owner
holds, and the arguments of a call live until the call returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from distrain.aligned_memory import ALIGNMENT, address_of, aligned_copy


def compile_zero_copy(
    function: Callable[[list[Any]], list[Any]], specs: Any, *, num_batches: int
) -> Callable[[Sequence[Any]], list[Any]]:
    """Compile a function of batches.

    Args:
        function: `num_batches` batches of tensors -> tensors.
        specs: a structure of `tf.TensorSpec` like one batch.
        num_batches: batches of one call.

    Returns:
        The same function on batches of arrays. The caller must not change an array during a call.
    """
    signature = tf.nest.flatten(specs)
    width = len(signature)

    def structured(*tensors: Any) -> list[Any]:
        batches = [tensors[start : start + width] for start in range(0, num_batches * width, width)]
        return function([tf.nest.pack_sequence_as(specs, batch) for batch in batches])

    compiled = tf.function(structured, input_signature=signature * num_batches, autograph=False)
    concrete = compiled.get_concrete_function()  # a concrete function checks fewer arguments in each call

    def call(batches: Sequence[Any]) -> list[Any]:
        return concrete(*(as_tensor(array) for batch in batches for array in tf.nest.flatten(batch)))

    return call


def as_tensor(given: Any) -> Any:
    """Return an array as a tensor, which reads the array in place where TensorFlow can; return a tensor as it is."""
    if not isinstance(given, (np.ndarray, np.generic)) and isinstance(given, tf.Tensor):
        return given
    array = np.asarray(given)
    if not array.dtype.isnative:  # DLPack knows no foreign byte order
        return tf.constant(array)
    if address_of(array) % ALIGNMENT or not array.flags.carray:  # TensorFlow would abort the process
        array = aligned_copy(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
