"""Threads in place of processes: each has a rank, and all exchange bytes at a barrier."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from distrain.cluster.process_group import ProcessGroup


@dataclass
class Exchange:
    """The memory and the barrier through which `size` threads exchange bytes."""

    size: int
    barrier: threading.Barrier = field(init=False)
    contents: list[bytes] = field(init=False)

    def __post_init__(self):
        self.barrier = threading.Barrier(self.size, timeout=60)
        self.contents = [b""] * self.size

    def process(self, rank):
        return Process(rank, self.size, self)


@dataclass(frozen=True)
class Process(ProcessGroup):
    """A process group, as one thread sees it."""

    rank: int
    size: int
    shared: Exchange

    def all_gather_bytes(self, content):
        self.shared.contents[self.rank] = content
        self.shared.barrier.wait()
        received = list(self.shared.contents)
        self.shared.barrier.wait()
        return received


@dataclass(frozen=True)
class FunctionGroup(ProcessGroup):
    """One process of a group whose exchanges are made by a function."""

    rank: int
    size: int
    exchange: Callable[[bytes], list[bytes]]

    def all_gather_bytes(self, content):
        return self.exchange(content)


def on_all(size, action):
    """Return the result or the error of `action(process)` on each of `size` threads."""
    exchange = Exchange(size)

    results = [None] * size

    def run(rank):
        try:
            results[rank] = action(exchange.process(rank))
        except Exception as error:
            results[rank] = error

    # Daemon threads let the test fail instead of hanging when threads wait for a failed thread.
    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 60
    for thread in threads:
        thread.join(timeout=max(0, end - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), results
    return results
