"""The processes that an MPI launcher started, as a process group over mpi4py.

Decides: how bytes travel between processes by MPI. Never: reduces tensors, or loads TensorFlow.

    group = MpiGroup()                  # starts MPI in this process
    group.all_gather_bytes(b"mine")     # [b"from rank 0", b"from rank 1", ...]

Training loads TensorFlow before this module (`distribution/collectives/mpi.py` says why).
"""

from __future__ import annotations

import numpy as np

from distrain.cluster.process_group import ProcessGroup
from distrain.errors import ConfigurationError
from distrain.extras import install_command

try:
    from mpi4py import MPI
except (ImportError, RuntimeError) as error:  # mpi4py looks for the library of MPI at its import
    raise ConfigurationError(
        f"mpi4py cannot load MPI: {' '.join(str(error).split())}. Install both for this Python: "
        f"{install_command('mpi')}, or name the library of your MPI in MPI4PY_LIBMPI."
    ) from None

CHUNK_BYTES = 2**30  # MPI 3 counts with 32-bit numbers


class MpiGroup(ProcessGroup):
    """All processes of `MPI.COMM_WORLD`."""

    def __init__(self) -> None:
        self.rank, self.size = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size

    def all_gather_bytes(self, content: bytes) -> list[bytes]:
        """See `ProcessGroup`."""
        sizes = np.empty(self.size, np.int64)
        MPI.COMM_WORLD.Allgather(np.array([len(content)], np.int64), sizes)
        joined = np.empty(int(sizes.sum()), np.uint8)
        MPI.COMM_WORLD.Allgatherv(np.frombuffer(content, np.uint8), [joined, sizes, None, MPI.UINT8_T])
        ends = np.cumsum(sizes)
        return [joined[end - size : end].tobytes() for size, end in zip(sizes, ends, strict=True)]

    def broadcast(self, content: bytes) -> bytes:
        """See `ProcessGroup`; content of any size, in chunks."""
        size = np.array([len(content)], np.int64)
        MPI.COMM_WORLD.Bcast(size)
        buffer = np.frombuffer(content, np.uint8).copy() if self.is_chief else np.empty(int(size[0]), np.uint8)
        for start in range(0, len(buffer), CHUNK_BYTES):
            MPI.COMM_WORLD.Bcast(buffer[start : start + CHUNK_BYTES])
        return buffer.tobytes()

    def abort(self) -> None:
        """End all processes at once, this process included."""
        MPI.COMM_WORLD.Abort(1)
