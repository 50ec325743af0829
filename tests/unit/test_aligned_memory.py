"""Large arrays reuse memory, and only memory that no array uses."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from distrain import aligned_memory
from distrain.aligned_memory import (
    ALIGNMENT,
    MAX_KEPT_BLOCKS,
    MIN_REUSED_BYTES,
    address_of,
    aligned_copy,
    aligned_empty,
)


@pytest.fixture(autouse=True)
def no_kept_blocks(monkeypatch):
    monkeypatch.setattr(aligned_memory, "_free", {})


@pytest.mark.parametrize("size", [1, MIN_REUSED_BYTES // 4 - 1, MIN_REUSED_BYTES // 4, 3 * MIN_REUSED_BYTES])
def test_arrays_are_aligned_and_hold_what_they_are_given(size):
    values = np.arange(size, dtype=np.float32)
    copies = [aligned_copy(values + number) for number in range(4)]
    for number, copy in enumerate(copies):
        assert address_of(copy) % ALIGNMENT == 0
        assert copy.flags.c_contiguous
        assert copy.flags.writeable
        np.testing.assert_array_equal(copy, values + number)


def test_freed_memory_is_reused_and_memory_of_a_living_view_is_not():
    first = aligned_empty((MIN_REUSED_BYTES,), np.uint8)
    address, view = address_of(first), first[10:20].reshape(2, 5)
    view[:] = 7
    del first
    gc.collect()
    other = aligned_empty((MIN_REUSED_BYTES,), np.uint8)
    other[:] = 1
    assert address_of(other) != address
    assert np.all(view == 7)
    del view
    gc.collect()
    again = aligned_empty((MIN_REUSED_BYTES + 100,), np.uint8)  # of nearly the same size
    assert address_of(again) == address


def test_few_blocks_are_kept():
    arrays = [aligned_empty((MIN_REUSED_BYTES + 1000 * number,), np.uint8) for number in range(10)]
    del arrays
    gc.collect()
    assert [len(blocks) for blocks in aligned_memory._free.values()] == [MAX_KEPT_BLOCKS]
