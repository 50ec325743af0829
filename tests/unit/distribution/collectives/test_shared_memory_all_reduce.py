"""All-reduces in shared memory against NumPy; threads stand for ranks."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threads_as_processes import on_all

from distrain.distribution.collectives import shared_memory_all_reduce
from distrain.distribution.collectives.shared_memory import open_shared_memory
from distrain.distribution.collectives.shared_memory_all_reduce import SharedMemoryCollectives

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is shared on Linux only")

SIZES = (2, 3, 8)


@pytest.fixture(scope="module")
def collectives():
    """By number of ranks the collectives of each rank."""
    return {size: on_all(size, lambda process: SharedMemoryCollectives(open_shared_memory(process))) for size in SIZES}


def all_reduced(collectives, buffers, *, times=1, reduce="all_reduce_sum", **arguments):
    """Return each rank's buffers after `times` all-reduces of `buffers`, one a rank."""

    def rank(process):
        own = [buffers[process.rank].copy() for _ in range(times)]
        for buffer in own:
            getattr(collectives[len(buffers)][process.rank], reduce)(buffer, **arguments)
        return own

    return on_all(len(buffers), rank)


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from(SIZES),
    length=st.integers(0, 100),
    dtype=st.sampled_from(["f4", "f8", "i4", "i8"]),
    area_bytes=st.sampled_from([64, 128, 1024]),
    fp16=st.booleans(),
    seed=st.integers(0, 9),
)
def test_sums_are_those_in_rank_order_in_any_number_of_chunks(collectives, size, length, dtype, area_bytes, fp16, seed):
    drawn = np.random.default_rng(seed)
    buffers = [(drawn.normal(size=length) * 1000).astype(dtype) for _ in range(size)]
    expected = buffers[0].copy()
    for buffer in buffers[1:]:
        expected += buffer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_memory_all_reduce, "AREA_BYTES", area_bytes)
        # The areas alternate: the third sum meets what the first left behind.
        for rank in all_reduced(collectives, buffers, times=3, fp16=fp16):
            for found in rank:
                assert found.dtype == expected.dtype
                assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("size", SIZES)
def test_a_mask_becomes_the_union(collectives, size):
    drawn = np.random.default_rng(size)
    masks = [(drawn.random(1001) < 0.2).astype(np.uint8) for _ in range(size)]
    for (found,) in all_reduced(collectives, masks, reduce="all_reduce_or"):
        np.testing.assert_array_equal(found, np.bitwise_or.reduce(masks))


@pytest.mark.filterwarnings("error")
def test_too_large_sums_are_infinite_without_a_warning(collectives):
    largest = np.full(100, np.finfo(np.float32).max)
    for (found,) in all_reduced(collectives, [largest, largest], fp16=False):
        assert np.all(np.isinf(found))


@pytest.mark.parametrize("size", SIZES)
def test_a_slow_rank_neither_loses_a_sum_nor_spoils_one(collectives, size):
    """Each rank is late at another step, before the sum and after it."""

    def rank(process):
        own = collectives[size][process.rank]
        sums = []
        for step in range(30):
            if step % size == process.rank:
                time.sleep(2e-3)
            buffer = np.full(1000, step * (process.rank + 1), np.float32)
            own.all_reduce_sum(buffer, fp16=False)
            if step % 7 == process.rank:
                time.sleep(2e-3)
            sums.append(set(buffer.tolist()))
        return sums

    ranks = sum(range(1, size + 1))
    assert on_all(size, rank) == [[{step * ranks} for step in range(30)]] * size
