"""The process group: gathers, broadcasts and barriers, of one process and of several."""

from __future__ import annotations

import dataclasses
import time

import pytest
from threads_as_processes import on_all

from distrain.cluster.process_group import SingleProcess


def test_each_process_receives_all_contents_in_rank_order():
    gathered = on_all(3, lambda group: group.all_gather_bytes(f"from {group.rank}".encode()))
    assert gathered == [[b"from 0", b"from 1", b"from 2"]] * 3


def test_a_broadcast_gives_the_content_of_rank_0_alone():
    assert on_all(3, lambda group: group.broadcast(f"from {group.rank}".encode())) == [b"from 0"] * 3


def test_nobody_leaves_a_barrier_before_the_last_process_enters():
    def rank(group):
        if group.rank == 1:
            time.sleep(0.3)
        entered = time.monotonic()
        group.barrier()
        return entered, time.monotonic()

    times = on_all(3, rank)
    assert min(left for _, left in times) >= max(entered for entered, _ in times)


def test_rank_0_is_the_chief():
    assert on_all(3, lambda group: group.is_chief) == [True, False, False]


def test_a_single_process_is_a_group_of_its_own():
    group = SingleProcess()
    assert (group.rank, group.size, group.is_chief) == (0, 1, True)
    assert group.all_gather_bytes(b"mine") == [b"mine"]
    assert group.broadcast(b"mine") == b"mine"
    assert group.barrier() is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        group.rank = 1
