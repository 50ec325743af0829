"""Sums in shared memory against NumPy, by threads that stand for ranks."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threads_as_processes import on_all

from distrain.distribution.host_sum import Rows
from distrain.distribution.shared_memory import AREA_BYTES, LENT_BYTES, share
from distrain.distribution.shared_sum import Part, SharedSum, fits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is shared on Linux only")

SIZES = (2, 3)


@pytest.fixture(scope="module")
def memories():
    return {size: on_all(size, lambda process, n=size: share(process.exchange, process.rank, n)) for size in SIZES}


def summed(memories, parts, given):
    """What each rank holds after a sum of what they are given, tensors by rank."""
    memory = memories[len(given)]
    sums = [SharedSum(shared, parts) for shared in memory]
    return on_all(len(given), lambda process: sums[process.rank](given[process.rank]))


def dense(tensor):
    if not isinstance(tensor, Rows):
        return tensor
    matrix = np.zeros((tensor.num_rows, *tensor.values.shape[1:]), tensor.values.dtype)
    np.add.at(matrix, tensor.indices, tensor.values)
    return matrix


@st.composite
def cases(draw):
    """Parts, and what two or three ranks give: small whole numbers, which add up exactly in any order."""
    parts = [
        Part(shape, np.dtype(draw(st.sampled_from(["f4", "f8"] if is_rows else ["f4", "f8", "i4", "i8"]))), is_rows)
        for shape, is_rows in draw(
            st.lists(
                st.one_of(
                    st.tuples(st.lists(st.integers(0, 5), max_size=3).map(tuple), st.just(False)),
                    st.tuples(st.tuples(st.integers(1, 40), st.integers(1, 20)), st.just(True)),
                ),
                min_size=1,
                max_size=6,
            )
        )
    ]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def tensor(part):
        if not part.is_rows:
            return rng.integers(-99, 99, part.shape).astype(part.dtype)
        indices = rng.integers(0, part.shape[0], rng.integers(0, 60))
        if rng.random() < 0.5:
            indices = np.unique(indices)
        indices = indices.astype(rng.choice(["i4", "i8"]))
        return Rows(rng.integers(-99, 99, (len(indices), part.shape[1])).astype(part.dtype), indices, part.shape[0])

    return parts, [[tensor(part) for part in parts] for _ in range(draw(st.sampled_from(SIZES)))]


@settings(max_examples=150)
@given(case=cases())
def test_sums_are_those_of_numpy(memories, case):
    parts, given_to_ranks = case
    expected = [np.sum([dense(t) for t in tensors], axis=0) for tensors in zip(*given_to_ranks, strict=True)]
    for sums in summed(memories, parts, given_to_ranks):
        for part, found, wanted in zip(parts, sums, expected, strict=True):
            assert (found.shape, found.dtype) == (part.shape, part.dtype)
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("size", SIZES)
def test_all_ranks_hold_bitwise_the_same(memories, size):
    rng = np.random.default_rng(size)
    parts = [Part((300, 70), np.float32), Part((500, 64), np.float32, is_rows=True)]
    tensors = [
        [
            (rng.normal(size=(300, 70)) * 10.0 ** rng.integers(-4, 5, (300, 70))).astype(np.float32),
            Rows(rng.normal(size=(200, 64)).astype(np.float32), np.sort(rng.choice(500, 200, replace=False)), 500),
        ]
        for _ in range(size)
    ]
    first, *others = summed(memories, parts, tensors)
    for sums in others:
        assert [array.tobytes() for array in sums] == [array.tobytes() for array in first]
    for array, *given_to_ranks in zip(first, *tensors, strict=True):
        np.testing.assert_allclose(array, np.sum([dense(t) for t in given_to_ranks], axis=0), rtol=1e-5, atol=1e-5)


def test_rows_that_were_made_in_the_memory_stay_where_they_are(memories):
    part = Part((50, 16), np.float32, is_rows=True)
    for turn in range(4):
        for shared in memories[2]:
            shared.areas[:, : 2**16] = 0
        tensors = []
        for rank, shared in enumerate(memories[2]):
            values = shared.empty((3, 16), np.float32)
            values[:] = 1 + rank + turn
            tensors.append([Rows(values, np.array([rank, 7, 49], np.int32), 50)])
        areas = memories[2][0].areas
        for (total,) in summed(memories, [part], tensors):
            expected = np.zeros((50, 16))
            expected[[7, 49]] = 3 + 2 * turn
            expected[0], expected[1] = 1 + turn, 2 + turn
            np.testing.assert_array_equal(total, expected)
        assert not np.isin(areas[:, : 2**16].view(np.float32), [1 + turn, 2 + turn]).any()


def test_a_sum_is_not_changed_by_the_next_one(memories):
    parts = [Part((1000,), np.float32), Part((40, 8), np.float64, is_rows=True)]

    def tensors(value):
        rows = Rows(np.full((2, 8), value, np.float64), np.array([3, 5]), 40)
        return [[np.full(1000, value, np.float32), rows] for _ in range(3)]

    before = summed(memories, parts, tensors(1))
    for value in (10, 20, 30):
        summed(memories, parts, tensors(value))
    for array, rows in before:
        assert (array == 3).all()
        assert rows.sum() == 3 * 16


def test_what_another_sum_left_between_arrays_is_no_complaint(memories):
    """As an evaluation's figures lie where a step's gradients begin; warnings are errors here."""
    rubbish = [[np.array([np.inf, -np.inf][rank] * np.ones(16), np.float32)] for rank in range(2)]
    for _ in range(2):
        with np.errstate(invalid="ignore"):
            summed(memories, [Part((16,), np.float32)], rubbish)
    parts = [Part((), np.float32), Part((3,), np.float32)]
    for number, three in summed(memories, parts, [[np.float32(1), np.full(3, np.inf, np.float32)]] * 2):
        assert number == 2
        assert (three == np.inf).all()


def test_what_fits():
    room = AREA_BYTES - LENT_BYTES
    assert fits([Part((room // 4,), np.float32)])
    assert not fits([Part((room // 4,), np.float32), Part((), np.float32)])
    assert not fits([Part((room // 256, 64), np.float32, is_rows=True)])  # with their numbers
