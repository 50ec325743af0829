"""Memory that all ranks of one machine share, and the place where they wait for each other.

Decides: how ranks come to the same memory, and when what the others wrote may be read. Never: what is written.

    shared = share(group)     # None, where the ranks do not share a machine
    areas = shared.areas                                 # of all ranks, uint8 [size, AREA_BYTES]
    areas[shared.rank, :4] = 1                           # the own one
    shared.wait()                                        # for all ranks: now `areas` may be read
    shared.wait()                                        # all have read: now the own one may be written to

The memory has no name that could be left behind: other ranks open it by rank 0's descriptor, which the system allows to
processes of the same user, and which tells of a nonce that they compare.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import mmap
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from distrain.aligned_memory import aligned_empty, rounded_up
from distrain.cluster.process_group import ProcessGroup

AREA_BYTES = 2**29  # of one rank; the system gives only those pages that are written to
ARENA_BYTES = 2**28  # of these, at the end: for `SharedMemory.empty`
KEPT_BYTES = 2**29  # of all ranks together: for `SharedMemory.keep`
MAX_RANKS = 8  # a guess; two were measured
SPINS = 200  # looks, of about a microsecond, before a rank sleeps until the next one comes

_HEAD_BYTES = 4096
_SEMAPHORE_BYTES = 64  # a sem_t of glibc or musl takes 32, and has a cache line to itself
_NONCE_BYTES = 16
_TURNS = 2  # each wait has other semaphores than the one before, which a rank may not have left yet


class SharedMemory:
    """The memory, seen from one rank.

    Args:
        memory: the whole of it, shared.
        rank: of this process.
        size: how many ranks there are, at most `MAX_RANKS`.

    Attributes:
        rank, size: as given.
        areas: those of all ranks, uint8 `[size, AREA_BYTES]`.
    """

    def __init__(self, memory: mmap.mmap, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._turn = self._lent = self._kept = 0
        whole = np.frombuffer(memory, np.uint8, offset=_HEAD_BYTES)
        self.areas = whole[: size * AREA_BYTES].reshape(size, AREA_BYTES)
        self._for_good = whole[size * AREA_BYTES :]
        first = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + _SEMAPHORE_BYTES  # behind the nonce
        self._semaphores = [
            [ctypes.c_void_p(first + (turn * size + rank) * _SEMAPHORE_BYTES) for rank in range(size)]
            for turn in range(_TURNS)
        ]
        self._libc = ctypes.CDLL(None)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array in the own area, whose values are not set; elsewhere, where there is no room left until `wait`.

        It may be used until the next `wait` but one.
        """
        num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        if self._lent + num_bytes > ARENA_BYTES:
            return aligned_empty(shape, dtype)
        start = AREA_BYTES - ARENA_BYTES + self._lent
        self._lent += rounded_up(num_bytes)
        return self.areas[self.rank, start : start + num_bytes].view(dtype).reshape(shape)

    def keep(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array for good that is the same one for all ranks, zeros at first; all must ask for the same in one order.

        Raises:
            MemoryError: there is no room left, see `room_to_keep`.
        """
        num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        if num_bytes > self.room_to_keep:
            raise MemoryError(f"{num_bytes} bytes are not left in the memory that ranks share.")
        start = self._kept
        self._kept += rounded_up(num_bytes)
        return self._for_good[start : start + num_bytes].view(dtype).reshape(shape)

    @property
    def room_to_keep(self) -> int:
        """Bytes that `keep` has left; each array takes a multiple of `ALIGNMENT`."""
        return KEPT_BYTES - self._kept

    def clear(self) -> None:
        """Make the memory new; for one rank, before the others come."""
        for semaphore in (semaphore for turn in self._semaphores for semaphore in turn):
            self._libc.sem_init(semaphore, 1, 0)

    def wait(self) -> None:
        """Wait until all ranks have called this as often.

        What a rank wrote before is then there for all to read (POSIX: semaphores synchronize memory).
        """
        semaphores = self._semaphores[self._turn]
        for rank, semaphore in enumerate(semaphores):
            if rank != self.rank:
                self._libc.sem_post(semaphore)
        for _ in range(self.size - 1):
            spins = 0
            while self._libc.sem_trywait(semaphores[self.rank]):
                spins += 1
                if spins > SPINS and not self._libc.sem_wait(semaphores[self.rank]):  # a signal may interrupt it
                    break
        self._turn, self._lent = 1 - self._turn, 0


def share(group: ProcessGroup) -> SharedMemory | None:
    """Memory for all ranks; None for all of them, where one cannot come to it. All must call this.

    Args:
        group: all processes of the run.
    """
    rank, size = group.rank, group.size
    with contextlib.ExitStack() as stack:
        memory, offer = None, b""
        if rank == 0 and 1 < size <= MAX_RANKS:
            with contextlib.suppress(OSError, ValueError):
                descriptor, memory = stack.enter_context(_new_memory(size))
                offer = json.dumps([os.getpid(), descriptor, memory[:_NONCE_BYTES].hex()]).encode()
                SharedMemory(memory, rank, size).clear()
        offer = group.broadcast(offer)
        if rank > 0 and offer:
            with contextlib.suppress(OSError, ValueError):
                memory = _memory_of(*json.loads(offer), size=size)
        opened = group.all_gather_bytes(b"opened" if memory else b"")
    return SharedMemory(memory, rank, size) if memory and all(opened) else None


def _num_bytes(size: int) -> int:
    return _HEAD_BYTES + size * AREA_BYTES + KEPT_BYTES


@contextlib.contextmanager
def _new_memory(size: int) -> Iterator[tuple[int, mmap.mmap]]:
    """A descriptor, open in this context, and the memory behind it, which begins with a nonce."""
    if sys.platform != "linux":
        raise OSError("memory without a name is known to Linux only")
    descriptor = os.memfd_create("distrain")
    try:
        os.ftruncate(descriptor, _num_bytes(size))
        memory = mmap.mmap(descriptor, _num_bytes(size))
        memory[:_NONCE_BYTES] = secrets.token_bytes(_NONCE_BYTES)
        yield descriptor, memory
    finally:
        os.close(descriptor)


def _memory_of(process: int, descriptor: int, nonce: str, *, size: int) -> mmap.mmap | None:
    """The memory behind another process's descriptor; None where that process is not the one that is meant."""
    path = Path(f"/proc/{process:d}/fd/{descriptor:d}")
    found = path.stat()  # before it is opened: where processes are numbered by others, it may be anything
    if not stat.S_ISREG(found.st_mode) or found.st_size != _num_bytes(size):
        return None
    own = os.open(path, os.O_RDWR)
    try:
        memory = mmap.mmap(own, _num_bytes(size))
    finally:
        os.close(own)
    return memory if memory[:_NONCE_BYTES].hex() == nonce else None
