"""The processes of mpirun or srun as a team, over mpi4py.

Decides: how bytes travel between them by MPI. Never: what they mean.

    channel = MpiChannel(find_world(os.environ))
    channel.swap(b"mine")                            # [b"of rank 0", b"of rank 1", ...]
"""

from __future__ import annotations

import numpy as np

from distrain.cluster.world import World
from distrain.errors import ConfigurationError

_LAUNCHERS = ("mpirun", "mpich", "srun")


class MpiChannel:
    """All processes of the launcher; see `prepare_team.Channel`.

    Args:
        world: this process among them, by the environment.

    Raises:
        ConfigurationError: they were not started for MPI, or mpi4py is missing.
    """

    def __init__(self, world: World) -> None:
        cure = f"Start one process, and give --workers {world.size}; or start them by mpirun."
        if world.launcher not in _LAUNCHERS:
            raise ConfigurationError(f"prepare cannot share its work among processes of {world.launcher}. {cure}")
        try:
            from mpi4py import MPI
        except ImportError:
            raise ConfigurationError(
                f"{world.size} processes need mpi4py to prepare together, which is not installed: "
                f"pip install 'distrain[mpi]'. {cure}"
            ) from None
        self._mpi, self._all = MPI, MPI.COMM_WORLD
        self.rank, self.size = self._all.rank, self._all.size
        if self.size != world.size:
            raise ConfigurationError(
                f"{world.launcher} says that there are {world.size} processes, and MPI finds {self.size}: mpi4py "
                f"belongs to another MPI than the launcher. {cure}"
            )

    def all_gather_bytes(self, content: bytes) -> list[bytes]:
        """What each process gave, by rank."""
        sizes = np.empty(self.size, np.int64)
        self._all.Allgather(np.array([len(content)], np.int64), sizes)
        joined = np.empty(int(sizes.sum()), np.uint8)
        self._all.Allgatherv(np.frombuffer(content, np.uint8), [joined, sizes, None, self._mpi.UINT8_T])
        ends = np.cumsum(sizes)
        return [joined[end - size : end].tobytes() for size, end in zip(sizes, ends, strict=True)]

    def end(self) -> None:
        """End all processes, this one too."""
        self._all.Abort(1)
