"""Exchanges of bytes in shared memory; threads stand for ranks."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threads_as_processes import on_all

from distrain.distribution.collectives import shared_memory_group
from distrain.distribution.collectives.shared_memory import open_shared_memory
from distrain.distribution.collectives.shared_memory_group import SharedMemoryGroup

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is shared on Linux only")

SIZES = (2, 3, 8)


def group_of(process):
    """Return the group of a rank, whose other connection tells that it was used."""
    told = SimpleNamespace(
        rank=process.rank,
        size=process.size,
        all_gather_bytes=lambda content: [b"otherwise " + each for each in process.all_gather_bytes(content)],
        broadcast=process.broadcast,
    )
    return SharedMemoryGroup(open_shared_memory(process), told)


@pytest.fixture(scope="module")
def groups():
    """By number of ranks the group of each rank."""
    return {size: on_all(size, group_of) for size in SIZES}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), size=st.sampled_from(SIZES), area_bytes=st.sampled_from([16, 64, 1024]))
def test_all_ranks_receive_what_each_rank_gave(groups, data, size, area_bytes):
    """A content that the memory has no room for takes the other connection, on all ranks."""
    rounds = data.draw(st.lists(st.lists(st.binary(max_size=80), min_size=size, max_size=size), max_size=4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_memory_group, "AREA_BYTES", area_bytes)
        found = on_all(size, lambda p: [groups[size][p.rank].all_gather_bytes(given[p.rank]) for given in rounds])
    expected = [
        given if max(map(len, given)) <= area_bytes - 8 else [b"otherwise " + content for content in given]
        for given in rounds
    ]
    assert found == [expected] * size


@pytest.mark.parametrize("size", SIZES)
def test_a_slow_rank_neither_loses_bytes_nor_spoils_them(groups, size):
    """Each rank is late at another exchange, before it and after it."""

    def rank(process):
        found = []
        for step in range(30):
            if step % size == process.rank:
                time.sleep(2e-3)
            found.append(groups[size][process.rank].all_gather_bytes(b"%d of %d" % (step, process.rank)))
            if step % 7 == process.rank:
                time.sleep(2e-3)
        return found

    assert on_all(size, rank) == [[[b"%d of %d" % (step, r) for r in range(size)] for step in range(30)]] * size


def test_the_chief_broadcasts(groups):
    assert on_all(3, lambda process: groups[3][process.rank].broadcast(b"of %d" % process.rank)) == [b"of 0"] * 3
