"""All-reduces of host buffers through memory that all ranks of one machine map.

Decides: how ranks add buffers up in shared memory. Never: what buffers hold (`host_all_reduce.py` packs them).

    collectives = SharedMemoryCollectives(open_shared_memory(group))
    collectives.all_reduce_sum(np.ones(5, np.float32), fp16=False)

Every rank copies its buffer into the shared memory; each rank reduces one stretch of all buffers (reduce-scatter);
every rank copies the result out (all-gather). Stretches add up in rank order, so all ranks hold bitwise the same sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distrain.distribution.collectives.shared_memory import AREA_BYTES, SharedMemory


class SharedMemoryCollectives:
    """`HostCollectives` of ranks on one machine.

    Args:
        memory: the memory that all ranks map.
    """

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory

    def all_reduce_sum(self, buffer: np.ndarray, *, fp16: bool) -> None:
        """Sum a one-dimensional buffer in place over all ranks, in full precision: `fp16` saves nothing in memory."""
        with np.errstate(all="ignore"):  # an overflow becomes infinite, which the step detects
            self._all_reduce(buffer, np.add)

    def all_reduce_or(self, mask: np.ndarray) -> None:
        """Set a uint8 mask in place to its bitwise or over all ranks."""
        self._all_reduce(mask, np.bitwise_or)

    def _all_reduce(self, buffer: np.ndarray, operation: Any) -> None:
        memory, per_chunk = self._memory, AREA_BYTES // buffer.itemsize
        for first in range(0, len(buffer), per_chunk):
            chunk = buffer[first : first + per_chunk]
            of_ranks = memory.next_areas()[:, : chunk.nbytes].view(buffer.dtype)
            of_ranks[memory.rank] = chunk
            memory.wait()
            begin, end = (len(chunk) * rank // memory.size for rank in (memory.rank, memory.rank + 1))
            total, *others = of_ranks[:, begin:end]
            for other in others:
                operation(total, other, out=total)
            memory.wait()
            chunk[:] = of_ranks[0]
