"""Memory that ranks share: who comes to it, and that nobody reads before all have written."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest
from threads_as_processes import FunctionGroup, on_all

from distrain.aligned_memory import ALIGNMENT
from distrain.distribution.collectives import shared_memory
from distrain.distribution.collectives.shared_memory import AREA_BYTES, MAX_RANKS, _memory_of, _num_bytes, share

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is shared on Linux only")


@pytest.mark.parametrize("size", [2, 3, 5])
def test_what_was_written_before_the_wait_is_read_after_it(size):
    def rank(process):
        shared = share(process)
        pauses = random.Random(process.rank)
        for number in range(300):
            areas = shared.areas
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
        shared = share(process)
        if process.rank == 0:
            time.sleep(1)
        before = time.thread_time()
        shared.wait()
        return time.thread_time() - before

    assert max(on_all(2, rank)) < 0.5


def test_another_process_comes_to_the_same_memory():
    script = (
        "import sys, json\n"
        "from distrain.cluster.process_group import ProcessGroup\n"
        "from distrain.distribution.collectives.shared_memory import share\n"
        "offer = sys.stdin.readline().strip().encode()\n"
        "answers = iter([[offer, b''], [b'opened', b'opened']])\n"
        "class Group(ProcessGroup):\n"
        "    rank, size = 1, 2\n"
        "    def all_gather_bytes(self, content):\n"
        "        print(content.decode(), flush=True)\n"
        "        return next(answers)\n"
        "shared = share(Group())\n"
        "areas = shared.areas\n"
        "areas[1, :3] = [7, 8, 9]\n"
        "shared.wait()\n"
        "print(areas[0, :3].tolist())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        heard = []

        def all_gather_bytes(content):
            if not heard:
                other.stdin.write(content.decode() + "\n")
                other.stdin.flush()
            heard.append(content)
            if len(heard) == 2:
                assert [other.stdout.readline() for _ in range(2)] == ["\n", "opened\n"]
            return [content, b"opened"]

        shared = share(FunctionGroup(0, 2, all_gather_bytes))
        areas = shared.areas
        areas[0, :3] = [1, 2, 3]
        shared.wait()
        assert areas[1, :3].tolist() == [7, 8, 9]
        assert other.communicate()[0] == "[1, 2, 3]\n"
        assert other.returncode == 0


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_no_rank_shares_where_one_cannot(monkeypatch, failing):
    def refuse(*_):
        raise PermissionError("not yours")

    if failing == 0:
        monkeypatch.setattr(shared_memory.os, "memfd_create", refuse)

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

            return share(FunctionGroup(process.rank, 3, all_gather_bytes))
        return share(process)

    assert on_all(3, rank) == [None] * 3


@pytest.mark.parametrize("size", [1, MAX_RANKS + 1])
def test_one_rank_shares_with_nobody_and_many_share_nothing(size):
    assert on_all(size, lambda process: share(process)) == [None] * size


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


def test_lent_memory_lies_in_the_own_area_while_there_is_room(monkeypatch):
    monkeypatch.setattr(shared_memory, "ARENA_BYTES", 1024)

    def rank(process):
        shared = share(process)
        for _ in range(3):
            own = shared.areas[process.rank]
            first, second, third = (
                shared.empty((10, 3), np.float32),
                shared.empty((5,), np.int64),
                shared.empty((), "f8"),
            )
            big = shared.empty((200,), np.float64)
            for array, value in ((first, 1), (second, 2), (third, 3)):
                assert array.ctypes.data % ALIGNMENT == 0
                assert np.shares_memory(array, own[AREA_BYTES - 1024 :])
                array[...] = value
            assert [first.sum(), second.sum(), third] == [30, 10, 3]
            assert (first.shape, second.dtype, big.shape) == ((10, 3), np.int64, (200,))
            assert not np.shares_memory(big, own)
            shared.wait()
        return True

    assert on_all(2, rank) == [True, True]
