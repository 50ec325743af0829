"""The line on standard error that ends a failed command.

Decides: how an error reads, and which rank prints it. Never: which exit code it has.

    print_error(DataError("train.csv is empty"))     # distrain: error: train.csv is empty
"""

from __future__ import annotations

import os
import sys

from distrain.cluster.world import World, find_world
from distrain.errors import ConfigurationError, DistrainError, StopRequested


def world_or_alone() -> World:
    """Find this process among all processes of the run; a wrong environment counts as one process."""
    try:
        return find_world(os.environ)
    except ConfigurationError:  # the command itself raises this error again, if the command needs a world
        return World()


def print_error(error: DistrainError) -> None:
    """Print an error, unless another rank reports the same error."""
    world = world_or_alone()
    if error.reporting_rank is None or error.reporting_rank == world.rank:
        rank = f"rank {world.rank}: " if world.size > 1 else ""
        kind = "stopped" if isinstance(error, StopRequested) else "error"
        notes = getattr(error, "__notes__", [])  # details that were added on the error's way up
        print(f"distrain: {kind}: {rank}{' '.join([str(error), *notes])}", file=sys.stderr, flush=True)
