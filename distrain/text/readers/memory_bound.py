"""A bound on the memory that a block of code may allocate, for libraries that a small file can make use any amount.

Decides: how the system refuses memory. Never: how much a reader may use.

    with memory_bound(2**28):
        json.loads(line)                       # MemoryError, if it takes over 256 MiB

The bound holds for all threads of the process while the block runs. Systems other than Linux have no bound.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_USED = Path("/proc/self/statm")
_DATA_FIELD = 5  # of /proc/self/statm: private writable pages, which RLIMIT_DATA limits


@contextmanager
def memory_bound(num_bytes: int) -> Iterator[None]:
    """Refuse memory that the block asks for beyond `num_bytes`, so that the block raises `MemoryError`."""
    try:
        pages = int(_USED.read_text().split()[_DATA_FIELD])
    except OSError:
        yield
        return
    limits = soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound = pages * os.sysconf("SC_PAGE_SIZE") + num_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (bound if soft < 0 else min(bound, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)
