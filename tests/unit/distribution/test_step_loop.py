"""Steps of one call: each gets its own batches, in order, whatever their number."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from distrain.distribution.step_loop import compile_step_loop

SPECS = {"given": tf.TensorSpec([None], tf.float32), "number": tf.TensorSpec([], tf.int64)}


def batch(step, length=3):
    return {"given": np.full(length, step, np.float32), "number": np.int64(step)}


def compiled(*, seen=lambda number: None, num_batches=1):
    """A loop that halves a variable and adds the sum of its batches, and returns both."""
    total = tf.Variable(0.0)

    def step(batches):
        numbers = [tf.numpy_function(lambda n: (seen(n), n)[1], [b["number"]], tf.int64) for b in batches]
        added = tf.add_n([tf.reduce_sum(b["given"]) for b in batches])
        total.assign(total * 0.5 + added)
        return [tf.stack([total.read_value(), added, *(tf.cast(number, tf.float32) for number in numbers)])]

    return compile_step_loop(step, SPECS, num_batches=num_batches)


def test_each_step_begins_where_the_step_before_ended():
    loop = compiled()
    state, step = 0.0, 0
    for num_steps in (1, 5, 2, 1):
        lengths = [1 + number % 3 for number in range(step, step + num_steps)]
        (vectors,) = loop([[batch(step + index, length)] for index, length in enumerate(lengths)])
        assert vectors.shape == (num_steps, 3)
        for vector, length in zip(vectors.numpy(), lengths, strict=True):
            state = state * 0.5 + step * length
            assert vector.tolist() == [state, step * length, step]
            step += 1


def test_all_batches_of_a_step_arrive_in_their_order():
    (vectors,) = compiled(num_batches=3)([[batch(10 * step + place) for place in range(3)] for step in range(2)])
    assert vectors.numpy()[:, 2:].tolist() == [[0, 1, 2], [10, 11, 12]]


def test_a_call_that_failed_leaves_no_batch_for_the_next():
    def refuse(number):
        if number == 2:
            raise RuntimeError("step 2")

    loop = compiled(seen=refuse)
    with pytest.raises(tf.errors.UnknownError, match="step 2"):
        loop([[batch(step)] for step in range(1, 6)])
    (vectors,) = loop([[batch(7)]])
    assert vectors.numpy()[:, 2].tolist() == [7]


def test_a_batch_that_does_not_fit_leaves_no_batch_for_the_next():
    loop = compiled()
    with pytest.raises(IndexError):
        loop([[batch(1)], [{"number": np.int64(2)}]])
    assert loop([[batch(7)]])[0].numpy()[:, 2].tolist() == [7]
