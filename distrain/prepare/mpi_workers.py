"""The processes that mpirun or srun started, as a group that prepares one data set.

Decides: which launchers prepare can work under. Never: how bytes travel (`cluster/mpi_group.py`).

    group = join_mpi(find_world(os.environ))
    group.all_gather_bytes(b"mine")                  # [b"from rank 0", b"from rank 1", ...]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distrain.cluster.world import World
from distrain.errors import ConfigurationError

if TYPE_CHECKING:
    from distrain.cluster.mpi_group import MpiGroup

_LAUNCHERS = ("mpirun", "mpich", "srun")


def join_mpi(world: World) -> MpiGroup:
    """Join all processes of the launcher.

    Args:
        world: this process among them, according to the environment.

    Raises:
        ConfigurationError: the launcher did not start the processes for MPI, or mpi4py is missing.
    """
    cure = f"Start one process, and give --workers {world.size}; or start them by mpirun."
    if world.launcher not in _LAUNCHERS:
        raise ConfigurationError(f"prepare cannot share its work among processes of {world.launcher}. {cure}")
    try:
        from distrain.cluster.mpi_group import MpiGroup
    except ConfigurationError as error:
        raise ConfigurationError(f"{error} {cure}") from None
    group = MpiGroup()
    if group.size != world.size:
        raise ConfigurationError(
            f"{world.launcher} says that there are {world.size} processes, and MPI finds {group.size}: mpi4py "
            f"belongs to another MPI than the launcher. {cure}"
        )
    return group
