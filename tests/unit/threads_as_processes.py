"""Threads that stand for processes: each has a rank, and they exchange bytes at a barrier."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field


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
class Process:
    """One of them."""

    rank: int
    num_processes: int
    meeting: Meeting

    def exchange(self, content):
        self.meeting.places[self.rank] = content
        self.meeting.barrier.wait()
        heard = list(self.meeting.places)
        self.meeting.barrier.wait()
        return heard


def on_all(size, action):
    """What `action(process)` gives or raises on each of `size` processes."""
    meeting = Meeting(size)

    def run(rank):
        try:
            return action(meeting.process(rank))
        except Exception as error:
            return error

    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(run, range(size)))
