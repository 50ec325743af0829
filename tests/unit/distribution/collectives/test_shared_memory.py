"""Memory that ranks map: which ranks share the memory, and that no rank reads before all ranks have written."""

from __future__ import annotations

import json
import os
import random
import sys
import time

import numpy as np
import pytest
from threads_as_processes import FunctionGroup, on_all

from distrain.distribution.collectives.shared_memory import (
    AREA_BYTES,
    MAX_RANKS,
    _memory_of,
    _num_bytes,
    open_shared_memory,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is shared on Linux only")


@pytest.mark.parametrize("size", [2, 3, 5])
def test_what_was_written_before_the_wait_is_read_after_it(size):
    def rank(process):
        shared = open_shared_memory(process)
        pauses = random.Random(process.rank)
        for number in range(300):
            areas = shared.next_areas()
            assert areas.shape == (size, AREA_BYTES)
            time.sleep(pauses.random() * 1e-4)
            areas[process.rank, :8].view(np.int64)[0] = number * size + process.rank
            areas[process.rank, -1] = number % 251
            shared.wait()
            time.sleep(pauses.random() * 1e-4)
            found = areas[:, :8].view(np.int64)[:, 0].tolist()
            assert found == [number * size + other for other in range(size)]
            assert areas[:, -1].tolist() == [number % 251] * size
            shared.wait()
        return True

    assert on_all(size, rank) == [True] * size


def test_a_rank_that_waits_long_sleeps():
    def rank(process):
        shared = open_shared_memory(process)
        if process.rank == 0:
            time.sleep(1)
        before = time.thread_time()
        shared.wait()
        return time.thread_time() - before

    assert max(on_all(2, rank)) < 0.5


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_no_rank_shares_where_one_cannot(monkeypatch, failing):
    def refuse(*_):
        raise PermissionError("not yours")

    if failing == 0:
        monkeypatch.setattr(os, "memfd_create", refuse)

    def rank(process):
        if process.rank == failing > 0:
            offer = json.dumps([os.getpid(), 10**6, ""]).encode()
            heard = iter([[offer], process.all_gather_bytes])

            def all_gather_bytes(content):
                answer = next(heard)
                if callable(answer):
                    return answer(content)
                process.all_gather_bytes(content)
                return answer

            return open_shared_memory(FunctionGroup(process.rank, 3, all_gather_bytes))
        return open_shared_memory(process)

    assert on_all(3, rank) == [None] * 3


@pytest.mark.parametrize("size", [1, MAX_RANKS + 1])
def test_one_rank_shares_with_nobody_and_many_share_nothing(size):
    assert on_all(size, lambda process: open_shared_memory(process)) == [None] * size


def test_what_belongs_to_others_is_not_taken(tmp_path):
    """Where processes are numbered by others, the descriptor may be anything."""
    pipe, _ = os.pipe()
    assert _memory_of(os.getpid(), pipe, "", size=2) is None
    for num_bytes in (100, _num_bytes(2)):
        with (tmp_path / "file").open("wb+") as file:
            file.truncate(num_bytes)
            assert _memory_of(os.getpid(), file.fileno(), "ab" * 16, size=2) is None
    with (tmp_path / "file").open("rb") as file:  # but for the nonce it would have done
        assert _memory_of(os.getpid(), file.fileno(), "00" * 16, size=2) is not None
