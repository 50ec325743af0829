"""Environment -> World: which of how many processes this is.

Decides: rank and size, from what the launcher put into the environment. Never: starts, joins or counts processes.

    >>> from distrain.world import find_world
    >>> find_world({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4"})
    World(rank=1, size=4)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# What each launcher sets for its processes: (rank, size). Horovod's own come first, as it may run under mpirun.
_VARIABLES = (
    ("HOROVOD_RANK", "HOROVOD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
)


@dataclass(frozen=True)
class World:
    """This process among all processes of the run."""

    rank: int = 0
    size: int = 1


def find_world(environ: Mapping[str, str]) -> World:
    """The world that the environment describes; one process where it describes none."""
    for rank, size in _VARIABLES:
        if rank in environ and size in environ and environ[rank].isdecimal() and environ[size].isdecimal():
            return World(int(environ[rank]), int(environ[size]))
    return World()
