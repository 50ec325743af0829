"""Batches that a thread places on devices: one step ahead, in order, with errors at their step."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import numpy as np
import pytest
import tensorflow as tf

from distrain.batch import Batch, step_flags
from distrain.distribution.device_prefetch import placed, placed_ahead


def batch(number):
    features = {"wide": np.full((2, 3), number, np.float32), "ids": np.arange(2, dtype=np.int32)}
    scalars = (np.int64(0), np.int64(0), np.int32(2), np.int32(2))
    return Batch(features, np.full(2, number, np.float64), (), *scalars, step_flags(0))


class Source:
    """Steps of one batch; the last raises."""

    def __init__(self, num_steps):
        self.num_steps = num_steps
        self.taken = 0
        self.is_open = False
        self.grew = threading.Condition()

    @contextmanager
    def steps(self):
        self.is_open = True
        yield self._batches()
        self.is_open = False

    def _batches(self):
        for number in range(self.num_steps):
            with self.grew:
                self.taken += 1
                self.grew.notify_all()
            yield [batch(number)]
        raise OSError("no further step")


def test_one_step_more_than_asked_for_is_placed():
    source = Source(9)
    with placed_ahead(source.steps(), ["CPU:0"]) as steps:
        for asked in range(1, 5):
            (own,) = next(steps)
            assert float(own.labels[0]) == asked - 1
            with source.grew:
                assert source.grew.wait_for(lambda asked=asked: source.taken > asked, 60)
                assert not source.grew.wait_for(lambda asked=asked: source.taken > asked + 1, 0.05), "unbounded"
    assert not source.is_open


def test_an_error_comes_at_its_step():
    with placed_ahead(Source(2).steps(), ["CPU:0"]) as steps:
        assert [float(next(steps)[0].labels[0]) for _ in range(2)] == [0, 1]
        with pytest.raises(OSError, match="no further step"):
            next(steps)


def test_arrays_are_placed_with_their_values_and_what_the_host_reads_stays():
    (own,) = placed([batch(4)], ["CPU:0"])
    given = batch(4)
    for value, wanted in zip(tf.nest.flatten(own), tf.nest.flatten(given), strict=True):
        np.testing.assert_array_equal(np.asarray(value), wanted)
        assert np.asarray(value).dtype == wanted.dtype
    assert isinstance(own.features["wide"], tf.Tensor)
    assert isinstance(own.labels, tf.Tensor)
    on_host = (own.features["ids"], own.num_rows, own.epoch, own.step_flags)
    assert not any(isinstance(value, tf.Tensor) for value in on_host)
