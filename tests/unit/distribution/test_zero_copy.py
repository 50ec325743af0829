"""Arrays that a compiled step is given: their values arrive, from where they are, and are not written to."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from distrain.aligned_memory import aligned_copy
from distrain.distribution.zero_copy import compile_zero_copy


class Pair(NamedTuple):
    """A batch."""

    one: object
    two: object


def spec(array):
    return tf.TensorSpec(np.shape(array), np.asarray(array).dtype.newbyteorder("="))


NUMBERS = np.arange(-6, 6).reshape(3, 4)
READ_ONLY = aligned_copy(NUMBERS)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    "array",
    [
        *(NUMBERS.astype(dtype) for dtype in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "?")),
        np.asarray(NUMBERS, ">f4"),
        NUMBERS.T,
        NUMBERS[::2, 1:],
        READ_ONLY,
        NUMBERS.astype(np.float32).reshape(-1)[1:],  # nothing that begins where TensorFlow could read it
        np.zeros((0, 4), np.float32),
        np.float32(1.5),
        np.int64(2**40),
        7,
    ],
    ids=str,
)
def test_values_arrive_as_they_are(array):
    step = compile_zero_copy(lambda batches: [batches[0]["given"]], {"given": spec(array)}, num_batches=1)
    (found,) = step([{"given": array}])
    assert (found.shape, found.dtype) == (np.shape(array), spec(array).dtype)
    np.testing.assert_array_equal(found.numpy(), array)


def test_batches_keep_their_order_and_structure():
    specs = Pair({"a": tf.TensorSpec([None], tf.int32)}, tf.TensorSpec([], tf.float32))
    step = compile_zero_copy(lambda b: [tf.cast(x.one["a"], tf.float32) - x.two for x in b], specs, num_batches=2)
    first, second = step(
        [Pair({"a": np.array([3, 4], np.int32)}, np.float32(1)), Pair({"a": np.array([9], np.int32)}, np.float32(2))]
    )
    assert (first.numpy().tolist(), second.numpy().tolist()) == ([2.0, 3.0], [7.0])


def address_within(array):
    """Where a compiled step sees the values of an array."""
    where = lambda x: np.int64(x.__array_interface__["data"][0])  # noqa: E731 - a step's own words
    step = compile_zero_copy(lambda b: [tf.numpy_function(where, [b[0]], tf.int64)], spec(array), num_batches=1)
    return int(step([array])[0])


def test_what_is_aligned_is_read_where_it_is():
    aligned = aligned_copy(NUMBERS.astype(np.float32))
    assert address_within(aligned) == aligned.__array_interface__["data"][0]
    beside = aligned_copy(np.arange(100, dtype=np.float32))[1:]
    assert address_within(beside) != beside.__array_interface__["data"][0]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_step_does_not_write_to_what_it_is_lent(jit_compile):
    """An operation may put its result where its input was, but only where nobody else holds that."""

    @tf.function(jit_compile=jit_compile)
    def inner(x):
        return tf.nn.relu(-tf.nn.relu(x + 1.0) * 2.0) + x

    arrays = [aligned_copy(np.linspace(-1, 1, 1000).astype(np.float32)) for _ in range(2)]
    before = [array.tobytes() for array in arrays]
    step = compile_zero_copy(
        lambda b: [tf.nn.relu(b[0]), inner(b[1])], tf.TensorSpec([None], tf.float32), num_batches=2
    )
    for _ in range(3):
        positive, other = step(arrays)
        np.testing.assert_array_equal(positive.numpy(), np.maximum(arrays[0], 0))
        np.testing.assert_array_equal(other.numpy(), arrays[1])
    assert [array.tobytes() for array in arrays] == before
