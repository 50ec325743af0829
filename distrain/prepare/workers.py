"""The process group that prepares a data set.

Decides: how many processes share the work, and whether this process starts them or joins the processes of mpirun or
srun. Never: what a process works on.

    with gathered_group(config) as group:            # in every process that the user started
        prepare(config, console=console, group=group)
        with shared_folders(group, config.out) as (new, scratch): ...

The prepared data does not depend on the number of processes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from distrain.cluster.error_relay import ErrorRelay, relayed_errors
from distrain.cluster.process_group import ProcessGroup, SingleProcess
from distrain.cluster.world import find_world
from distrain.config import MAX_DEFAULT_WORKERS, MIN_BYTES_PER_WORKER, PrepareConfig
from distrain.errors import ConfigurationError
from distrain.prepare.staging import staged
from distrain.prepare.worker_group import WorkerGroup
from distrain.text.readers.input_files import find_files


@contextmanager
def gathered_group(config: PrepareConfig) -> Iterator[ProcessGroup]:
    """Yield the group of this process, and start the other processes if no launcher did.

    Raises:
        ConfigurationError: this process cannot join the launcher's processes.
    """
    world = find_world(os.environ)
    if world.size > 1:
        from distrain.prepare.mpi_workers import join_mpi

        mpi = join_mpi(world)
        try:
            yield ErrorRelay(mpi, end_peers=mpi.abort)
        except BaseException as error:
            if not isinstance(error, Exception):  # the other processes did not receive this signal
                mpi.abort()
            raise
        return
    workers = config.workers or _num_workers(config)
    if workers == 1:
        yield SingleProcess()
        return
    with ExitStack() as stack:
        group = WorkerGroup(config, workers)
        stack.callback(group.end)
        yield ErrorRelay(group, end_peers=group.end, reporting_rank=0)
        group.wait()


def _num_workers(config: PrepareConfig) -> int:
    """Return the number of cores, or fewer if the text is too small for all of them."""
    size = find_files(config.train, "--train").size or 0
    return max(1, min(len(os.sched_getaffinity(0)), MAX_DEFAULT_WORKERS, size // MIN_BYTES_PER_WORKER))


@contextmanager
def shared_folders(group: ProcessGroup, out: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the folders of `staged(out)` on every process; rank 0 alone creates and renames them.

    Raises:
        ConfigurationError: `staged` refuses `out`, or this process does not see the folders of rank 0.
    """
    with ExitStack() as stack:
        with relayed_errors(group):
            folders = stack.enter_context(staged(out)) if group.is_chief else ()
            new, scratch = map(Path, json.loads(group.broadcast(json.dumps([str(path) for path in folders]).encode())))
            if not scratch.is_dir():
                raise ConfigurationError(
                    f"--out {out} is on another file system for rank {group.rank} than for rank 0. "
                    "Choose a folder that all hosts share."
                )
        with relayed_errors(group):
            yield new, scratch
            group.barrier()  # raises if another process failed, before rank 0 renames the folder
