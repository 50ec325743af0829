"""Sums in shared memory against NumPy, by threads that stand for ranks."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threads_as_processes import on_all

from distrain.distribution.collectives import shared_memory
from distrain.distribution.collectives import shared_memory_all_reduce as shared_sum
from distrain.distribution.collectives.host_all_reduce import Rows
from distrain.distribution.collectives.shared_memory import AREA_BYTES, ARENA_BYTES, share
from distrain.distribution.collectives.shared_memory_all_reduce import Part, SharedSum, fits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is shared on Linux only")

SIZES = (2, 3)


@pytest.fixture(scope="module")
def memories():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_sum, "_MIN_TOGETHER", 50)
        yield {size: on_all(size, share) for size in SIZES}


def summed(memories, parts, given):
    """What each rank holds after a sum of what they are given, tensors by rank."""
    return on_all(len(given), lambda process: SharedSum(memories[len(given)][process.rank], parts)(given[process.rank]))


def dense(tensor):
    if not isinstance(tensor, Rows):
        return tensor
    matrix = np.zeros((tensor.num_rows, *tensor.values.shape[1:]), tensor.values.dtype)
    np.add.at(matrix, tensor.indices, tensor.values)
    return matrix


@st.composite
def cases(draw):
    """Parts, and what two or three ranks give, twice: small whole numbers, which add up exactly in any order."""
    parts = [
        Part(
            shape,
            np.dtype(draw(st.sampled_from(["f4", "f8"] if is_rows else ["f4", "f8", "i4", "i8"]))),
            is_rows=is_rows,
            together=draw(st.booleans()),
        )
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

    size = draw(st.sampled_from(SIZES))
    return parts, [[[tensor(part) for part in parts] for _ in range(size)] for _ in range(2)]


@settings(max_examples=150)
@given(case=cases())
def test_sums_are_those_of_numpy(memories, case):
    parts, occasions = case
    size = len(occasions[0])
    rooms = [memory.room_to_keep for memory in memories[size]]
    sums_of_ranks = on_all(size, lambda process: SharedSum(memories[size][process.rank], parts))
    for given_to_ranks in occasions:
        expected = [np.sum([dense(t) for t in tensors], axis=0) for tensors in zip(*given_to_ranks, strict=True)]
        for sums in on_all(size, lambda process, g=given_to_ranks: sums_of_ranks[process.rank](g[process.rank])):
            for part, found, wanted in zip(parts, sums, expected, strict=True):
                assert (found.shape, found.dtype) == (part.shape, part.dtype)
                np.testing.assert_array_equal(found, wanted)
    together = {place for place, part in enumerate(parts) if part.together and np.prod(part.shape) >= 50}
    assert [set(sums.totals) for sums in sums_of_ranks] == [together] * size
    assert all(
        (memory.room_to_keep < room) == bool(together) for memory, room in zip(memories[size], rooms, strict=True)
    )


@pytest.mark.parametrize("size", SIZES)
def test_all_ranks_hold_bitwise_the_same(memories, size):
    rng = np.random.default_rng(size)
    together = size == 2
    parts = [
        Part((300, 70), np.float32, together=together),
        Part((500, 64), np.float32, is_rows=True, together=together),
    ]
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
    part = Part((50, 16), np.float32, is_rows=True, together=True)
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


def test_a_sum_is_not_changed_by_the_next_one_but_one_that_is_made_together(memories):
    parts = [Part((1000,), np.float32), Part((40, 8), np.float64, is_rows=True), Part((60,), np.float32, together=True)]

    def tensors(value):
        rows = Rows(np.full((2, 8), value, np.float64), np.array([3, 5]), 40)
        return [np.full(1000, value, np.float32), rows, np.full(60, value, np.float32)]

    sums = on_all(3, lambda process: SharedSum(memories[3][process.rank], parts))
    before = on_all(3, lambda process: sums[process.rank](tensors(1)))
    for value in (10, 20, 30):
        on_all(3, lambda process, v=value: sums[process.rank](tensors(v)))
    for array, rows, made_together in before:
        assert (array == 3).all()
        assert rows.sum() == 3 * 16
        assert (made_together == 90).all()
    before[0][2][0] = 5
    assert [made_together[0] for _, _, made_together in before] == [5] * 3


@pytest.mark.parametrize("slow", [0, 1])
def test_no_rank_goes_on_before_all_have_added_up(memories, monkeypatch, slow):
    """One that did would read what another one still makes, or write over what it still reads."""
    parts = [Part((4,), "f4"), Part((60,), "f4", together=True), Part((40, 8), "f4", is_rows=True, together=True)]
    own = threading.local()

    def slowed(function):
        def slowly(*arguments):
            time.sleep(0.04 * (own.rank == slow))
            function(*arguments)

        return slowly

    for name in ("_add_up", "_merge_rows"):
        monkeypatch.setattr(shared_sum, name, slowed(getattr(shared_sum, name)))

    def rank(process):
        own.rank = process.rank
        sums = SharedSum(memories[2][process.rank], parts)
        found = []
        for value in (1, 2, 3):
            small, large, rows = np.full(4, value), np.full(60, value), np.full((40, 8), value, np.float32)
            found.append([array.copy() for array in sums([small, large, Rows(rows, np.arange(40), 40)])])
        return found

    for found in on_all(2, rank):
        assert [[(array == 2 * value).all() for array in arrays] for value, arrays in enumerate(found, 1)] == [
            [True] * 3
        ] * 3


def test_all_ranks_share_the_work_by_the_rows_that_there_are(memories):
    """Words are numbered by how often they occur: halves of the table would not be halves of the work."""
    part = Part((1000, 4), np.float32, is_rows=True, together=True)
    rows = np.append(np.arange(0, 100, dtype=np.int32), 990)
    sums = on_all(2, lambda process: SharedSum(memories[2][process.rank], [part]))
    on_all(2, lambda process: sums[process.rank]([Rows(np.ones((101, 4), np.float32), rows, 1000)]))
    own = []
    for each in sums:
        (large,) = each._large.values()
        large.total[:] = 0
        large.add_up()
        own.append(np.flatnonzero(large.total[:, 0]))
    assert [len(places) for places in own] == [50, 51]
    np.testing.assert_array_equal(np.concatenate(own), rows)


def test_where_there_is_no_room_each_rank_sums_for_itself(memories, monkeypatch):
    parts = [Part((500,), np.float32, together=True), Part((50, 4), np.float32, is_rows=True, together=True)]
    left = [memory.room_to_keep for memory in memories[2]]
    assert left[0] == left[1]
    monkeypatch.setattr(shared_memory, "KEPT_BYTES", shared_memory.KEPT_BYTES - left[0] + 2048 + 832 + 63)
    rows = Rows(np.ones((1, 4), np.float32), np.array([7]), 50)
    sums = on_all(2, lambda process: SharedSum(memories[2][process.rank], parts))
    assert [each.totals for each in sums] == [{}, {}]
    for array, matrix in on_all(2, lambda process: sums[process.rank]([np.ones(500, np.float32), rows])):
        assert (array == 2).all()
        assert matrix.sum() == matrix[7].sum() == 8
    monkeypatch.setattr(shared_memory, "KEPT_BYTES", shared_memory.KEPT_BYTES + 1)
    assert [set(SharedSum(memory, parts).totals) for memory in memories[2]] == [{0, 1}] * 2
    with pytest.raises(MemoryError):
        memories[2][0].keep((1,), np.uint8)


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
    room = AREA_BYTES - ARENA_BYTES
    assert fits([Part((room // 4,), np.float32)])
    assert not fits([Part((room // 4,), np.float32), Part((), np.float32)])
    assert fits([Part((room // 256, 64), np.float32, is_rows=True)])  # is summed dense
    assert not fits([Part((room // 256, 64), np.float32, is_rows=True, together=True)])  # with their numbers
