"""Threads that stand for processes: each has a rank, and they exchange bytes at a barrier."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from distrain.cluster.process_group import ProcessGroup


@dataclass
class Meeting:
    """Where `size` threads exchange bytes."""

    size: int
    barrier: threading.Barrier = field(init=False)
    places: list[bytes] = field(init=False)

    def __post_init__(self):
        self.barrier = threading.Barrier(self.size, timeout=60)
        self.places = [b""] * self.size

    def process(self, rank):
        return Process(rank, self.size, self)


@dataclass(frozen=True)
class Process(ProcessGroup):
    """One of them."""

    rank: int
    size: int
    meeting: Meeting

    def all_gather_bytes(self, content):
        self.meeting.places[self.rank] = content
        self.meeting.barrier.wait()
        heard = list(self.meeting.places)
        self.meeting.barrier.wait()
        return heard


@dataclass(frozen=True)
class FunctionGroup(ProcessGroup):
    """One process of a group whose exchanges are made by a function."""

    rank: int
    size: int
    exchange: Callable[[bytes], list[bytes]]

    def all_gather_bytes(self, content):
        return self.exchange(content)


def on_all(size, action):
    """What `action(process)` gives or raises on each of `size` processes."""
    meeting = Meeting(size)

    results = [None] * size

    def run(rank):
        try:
            results[rank] = action(meeting.process(rank))
        except Exception as error:
            results[rank] = error

    # Daemons: where one fails and the others wait for it, the test fails too, and does not hang.
    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 60
    for thread in threads:
        thread.join(timeout=max(0, end - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), results
    return results
