"""Collectives over mpi4py, for machines where Horovod is not built.

Decides: how tensors and bytes travel between ranks by MPI. Never: used beside Horovod in one run.

    group = start(find_world(os.environ), on_gpu=False)
    sum_in_place(np.ones(5, np.float32), halved=False)

Buffers are reduced where NumPy sees them, on the host: tensors of a GPU are copied there and back.

TensorFlow must be loaded before MPI: both bring the hwloc library under the same names, and an Open MPI that began with
its own and meets TensorFlow's on the way ends in a segmentation fault (Open MPI 4.1.8 with TensorFlow 2.21).
"""

from __future__ import annotations

import logging
from typing import Any

import mpi4py
import numpy as np
import tensorflow  # noqa: F401 - loaded before MPI, which else ends in a segmentation fault (see above)
from mpi4py import MPI

from distrain.cluster.mpi_group import CHUNK_BYTES, MpiGroup
from distrain.cluster.process_group import ProcessGroup
from distrain.cluster.world import World

_LOG = logging.getLogger(__name__)

NAME = "mpi"
VERSION = f"mpi4py {mpi4py.__version__}, {MPI.Get_library_version().split(',')[0].strip()}"


def start(world: World, *, on_gpu: bool) -> ProcessGroup:
    """Return the group, and warn of what is slow; MPI itself starts with the import and ends with the process.

    Args:
        world: what the environment says.
        on_gpu: whether this rank computes on a GPU, which is slow here; the chief says so.
    """
    if on_gpu and world.rank == 0:
        _LOG.warning(
            "--strategy mpi copies gradients from the GPU to the host and back at each step. "
            "Horovod with NCCL is faster: ./launch/install_horovod.sh --gpu"
        )
    return MpiGroup()


def stop() -> None:
    """Leave the other ranks for good; all must call it."""
    MPI.Finalize()


def on_device() -> None:
    """MPI sums on the host only."""


def all_reduce_sum(buffer: np.ndarray, *, fp16: bool) -> None:
    """Sum a one-dimensional buffer over all ranks; in half precision, where `fp16`."""
    per_chunk = CHUNK_BYTES // buffer.itemsize
    for first in range(0, len(buffer), per_chunk):
        chunk = buffer[first : first + per_chunk]
        if fp16:
            with np.errstate(over="ignore"):
                travelling = chunk.astype(np.float16)
            MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, [travelling, MPI.UINT16_T], _HALF_SUM)
            chunk[:] = travelling
        else:
            MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, chunk)


def all_reduce_or(mask: np.ndarray) -> None:
    """Make a uint8 mask the union over all ranks."""
    MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, mask, MPI.BOR)


def _add_halves(theirs: Any, ours: Any, datatype: Any) -> None:
    total = np.frombuffer(ours, np.float16)
    with np.errstate(over="ignore"):  # too large for half precision is infinite, and found as such
        np.add(total, np.frombuffer(theirs, np.float16), out=total)


_HALF_SUM = MPI.Op.Create(_add_halves, commute=True)  # MPI knows no half precision: its bits travel as integers
