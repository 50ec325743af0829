"""Memory that all ranks of one machine map, and a barrier on which the ranks wait for each other.

Decides: how ranks map the same memory, and when one rank may read what another wrote. Never: what ranks write.

    memory = open_shared_memory(group)          # None on every rank unless all ranks share one machine
    areas = memory.next_areas()                 # uint8 [size, AREA_BYTES]
    areas[group.rank, :4] = 1
    memory.wait()                               # returns once all ranks wait: `areas` may be read

The memory has no name that a killed rank could leave behind. Ranks open rank 0's descriptor through `/proc`, which
Linux allows to processes of one user, and compare a random nonce.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from distrain.cluster.process_group import ProcessGroup

MAX_RANKS = 8  # ranks; a guess, as only two and three were measured
AREA_BYTES = 2**26  # bytes of one rank in one turn; Linux provides only the pages that a rank writes to
SPINS = 200  # polls of about 1 us before a waiting rank sleeps

_HEAD_BYTES = 4096
_SEMAPHORE_BYTES = 64  # a sem_t of glibc or musl takes 32 bytes; 64 keep two semaphores out of one cache line
_NONCE_BYTES = 16
_TURNS = (
    2  # consecutive waits use different semaphores and consecutive sums different areas: a slow rank may lag by one
)


class SharedMemory:
    """The mapped memory as one rank sees it.

    Args:
        memory: the mapping, of `_num_bytes(size)` bytes.
        rank: number of this rank, from 0.
        size: number of ranks, at most `MAX_RANKS`.
    """

    def __init__(self, memory: mmap.mmap, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._areas = np.frombuffer(memory, np.uint8, offset=_HEAD_BYTES).reshape(_TURNS, size, AREA_BYTES)
        first = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + _SEMAPHORE_BYTES  # the nonce comes before
        self._semaphores = [
            [ctypes.c_void_p(first + (turn * size + rank) * _SEMAPHORE_BYTES) for rank in range(size)]
            for turn in range(_TURNS)
        ]
        self._libc = ctypes.CDLL(None)
        self._wait_turn = self._area_turn = 0

    def create_semaphores(self) -> None:
        """Initialize all semaphores; one rank calls this before the other ranks map the memory."""
        for semaphore in (semaphore for turn in self._semaphores for semaphore in turn):
            self._libc.sem_init(semaphore, 1, 0)

    def next_areas(self) -> np.ndarray:
        """Return the areas of all ranks, uint8 `[size, AREA_BYTES]`, other ones than the call before returned.

        All ranks must call this equally often, and wait at least once between two calls.
        """
        self._area_turn = 1 - self._area_turn
        return self._areas[self._area_turn]

    def wait(self) -> None:
        """Return once all ranks have called this equally often.

        POSIX semaphores synchronize memory: afterwards every rank reads what any rank wrote before.
        """
        semaphores = self._semaphores[self._wait_turn]
        for rank, semaphore in enumerate(semaphores):
            if rank != self.rank:
                self._libc.sem_post(semaphore)
        for _ in range(self.size - 1):
            spins = 0
            while self._libc.sem_trywait(semaphores[self.rank]):
                spins += 1
                if spins > SPINS and not self._libc.sem_wait(semaphores[self.rank]):  # a signal may interrupt sem_wait
                    break
        self._wait_turn = 1 - self._wait_turn


def open_shared_memory(group: ProcessGroup) -> SharedMemory | None:
    """Map memory that all ranks of `group` share; return None on every rank if any rank cannot. All must call this."""
    rank, size = group.rank, group.size
    with contextlib.ExitStack() as stack:
        memory, offer = None, b""
        if rank == 0 and 1 < size <= MAX_RANKS:
            with contextlib.suppress(OSError, ValueError):
                descriptor, memory = stack.enter_context(_new_memory(size))
                offer = json.dumps([os.getpid(), descriptor, memory[:_NONCE_BYTES].hex()]).encode()
                SharedMemory(memory, rank, size).create_semaphores()
        offer = group.broadcast(offer)
        if rank > 0 and offer:
            with contextlib.suppress(OSError, ValueError):
                memory = _memory_of(*json.loads(offer), size=size)
        opened = group.all_gather_bytes(b"opened" if memory else b"")
    return SharedMemory(memory, rank, size) if memory and all(opened) else None


def _num_bytes(size: int) -> int:
    return _HEAD_BYTES + _TURNS * size * AREA_BYTES


@contextlib.contextmanager
def _new_memory(size: int) -> Iterator[tuple[int, mmap.mmap]]:
    """Yield a descriptor, open in this context, and its mapped memory, which begins with a nonce."""
    if sys.platform != "linux":
        raise OSError("only Linux has memory without a name")
    descriptor = os.memfd_create("distrain")
    try:
        os.ftruncate(descriptor, _num_bytes(size))
        memory = mmap.mmap(descriptor, _num_bytes(size))
        memory[:_NONCE_BYTES] = secrets.token_bytes(_NONCE_BYTES)
        yield descriptor, memory
    finally:
        os.close(descriptor)


def _memory_of(process: int, descriptor: int, nonce: str, *, size: int) -> mmap.mmap | None:
    """Map the memory behind another process's descriptor; return None if `process` is not the rank that offered it."""
    path = Path(f"/proc/{process:d}/fd/{descriptor:d}")
    found = path.stat()  # checked before opening: in another PID namespace the number may name any process and file
    if not stat.S_ISREG(found.st_mode) or found.st_size != _num_bytes(size):
        return None
    own = os.open(path, os.O_RDWR)
    try:
        memory = mmap.mmap(own, _num_bytes(size))
    finally:
        os.close(own)
    return memory if memory[:_NONCE_BYTES].hex() == nonce else None
