"""Collectives over mpi4py, for machines where Horovod is not built.

Decides: how MPI carries buffers between ranks. Never: runs together with Horovod.

    group = start(find_world(os.environ))
    all_reduce_sum(np.ones(5, np.float32), fp16=False)

MPI reduces NumPy buffers on the host, so tensors of a GPU travel to the host and back.

TensorFlow must load before MPI. Both libraries bring hwloc under the same names. An Open MPI that started with its own
hwloc ends in a segmentation fault once TensorFlow loads another (Open MPI 4.1.8 with TensorFlow 2.21).
"""

from __future__ import annotations

import ctypes
import logging
from typing import Any

import mpi4py
import numpy as np
import tensorflow  # noqa: F401 - loaded before MPI, which else ends in a segmentation fault (see above)

from distrain.cluster.mpi_group import CHUNK_BYTES, MPI, MpiGroup
from distrain.cluster.process_group import ProcessGroup
from distrain.cluster.world import World

_LOG = logging.getLogger(__name__)

NAME = "mpi"
VERSION = f"mpi4py {mpi4py.__version__}, {MPI.Get_library_version().split(',')[0].strip()}"


def start(world: World) -> ProcessGroup:
    """Return the group; MPI starts with the import of mpi4py and ends with the process.

    Args:
        world: what the environment says.
    """
    return MpiGroup()


def check_gpu_support() -> None:
    """Let the chief warn that sums of ranks on GPUs are slow here."""
    if MPI.COMM_WORLD.rank == 0:
        _LOG.warning(
            "--strategy mpi copies gradients from the GPU to the host and back at each step. Horovod with NCCL is "
            "faster: distrain install-horovod --gpu. So is one process for all GPUs of one machine: start "
            "'distrain train --strategy mirrored' without a launcher."
        )


def stop() -> None:
    """Leave the other ranks for good; all ranks must call this.

    `MPI.Finalize` of mpi4py would hold the interpreter's lock, and so would stop the deadline of `choose.leave`.
    """
    ctypes.CDLL(MPI.__file__).MPI_Finalize()


def on_device() -> None:
    """Return None, as MPI sums on the host only."""


def all_reduce_sum(buffer: np.ndarray, *, fp16: bool) -> None:
    """Sum a one-dimensional buffer in place over all ranks; `fp16` sends half precision."""
    per_chunk = CHUNK_BYTES // buffer.itemsize
    for first in range(0, len(buffer), per_chunk):
        chunk = buffer[first : first + per_chunk]
        if fp16:
            with np.errstate(over="ignore"):
                wire = chunk.astype(np.float16)
            MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, [wire, MPI.UINT16_T], _HALF_SUM)
            chunk[:] = wire
        else:
            MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, chunk)


def all_reduce_or(mask: np.ndarray) -> None:
    """Set a uint8 mask in place to its bitwise or over all ranks."""
    MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, mask, MPI.BOR)


def _add_halves(theirs: Any, ours: Any, datatype: Any) -> None:
    total = np.frombuffer(ours, np.float16)
    with np.errstate(over="ignore"):  # an overflow becomes infinite, which the step detects
        np.add(total, np.frombuffer(theirs, np.float16), out=total)


_HALF_SUM = MPI.Op.Create(_add_halves, commute=True)  # MPI has no half precision, so the bits travel as integers
