"""The environment of a process -> its rank, the size of the job, and the rendezvous.

Decides: rank, size, local rank and local size of this process, from the variables of its launcher. Never: starts,
connects or counts processes.

    >>> from distrain.cluster.world import find_world
    >>> find_world({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4",
    ...             "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"})
    World(rank=1, size=4, local_rank=1, local_size=2, launcher='mpirun', rendezvous=None)
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from distrain.errors import ConfigurationError

# Variables of each launcher that sets all four numbers: rank, size, local rank, local size.
_VARIABLES = {
    "horovodrun": ("HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE"),
    "mpirun": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    "mpich": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
}
# Names one job, whose starts after a loss all have it. So a run knows what the same job has written. A scheduler that
# replaces whole machines sets it (the uid of Kubernetes' Job); otherwise a launcher that starts ranks again makes one.
LAUNCH_ID = "DISTRAIN_LAUNCH_ID"

_START_ONCE = "Start all processes by one launcher, and set none of its variables by hand."

# Above the ports of well-known services, below Kubernetes' node ports (30000) and Linux's ephemeral ports (32768).
_FIRST_PORT, _NUM_PORTS = 20_000, 10_000
_HOST = r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63}){0,9}"  # a DNS name or an IPv4 address


@dataclass(frozen=True)
class World:
    """This process among all processes of the job.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        local_rank: number of this process among the processes of its host, from 0.
        local_size: number of processes on this host.
        launcher: "horovodrun", "mpirun" (Open MPI), "mpich" (also Intel MPI), "srun" or "indexed job"; "" if no
            launcher started this process.
        rendezvous: "host:port" where rank 0 hosts the rendezvous; None if the launcher connects the ranks.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    launcher: str = ""
    rendezvous: str | None = None


def find_world(environ: Mapping[str, str]) -> World:
    """Return the world that the environment describes, or a world of one process.

    If several launchers left variables, the innermost launcher counts. In a SLURM job, the variables of mpirun describe
    the ranks, and the variables of srun describe the daemon of mpirun. If a launcher sets no local rank, all ranks
    count as ranks of one host; `placement.check_placement` detects other hosts later.

    Args:
        environ: environment variables of this process.

    Raises:
        ConfigurationError: a value is impossible, or a variable is missing although related variables are set.
    """
    given = {name: value for name, value in environ.items() if value}
    launcher = _launcher(given)
    if launcher == "srun":
        return _srun(given)
    if launcher == "indexed job":
        return _indexed_job(given)
    if launcher:
        return _plain(given, launcher)
    return World()


def is_chief() -> bool:
    """Return whether this process is rank 0 of its job, or works alone: the process that should write files.

    The answer is the same before, inside and after `distrain.fit`, and loads no TensorFlow.

    Raises:
        ConfigurationError: as `find_world`.
    """
    return find_world(os.environ).rank == 0


def _launcher(given: Mapping[str, str]) -> str:
    for launcher in ("horovodrun", "mpirun"):
        if any(name in given for name in _VARIABLES[launcher][:2]):
            return launcher
    # A batch script has a SLURM_PROCID too, but is a single process and no step.
    is_step = "SLURM_PROCID" in given and "SLURM_STEP_NUM_TASKS" in given
    # srun --mpi=pmi2 may set PMI_RANK too, but no local rank. MPICH's mpiexec starts its daemon as a step.
    if ("PMI_RANK" in given or "PMI_SIZE" in given) and ("MPI_LOCALRANKID" in given or not is_step):
        return "mpich"
    if is_step:
        return "srun"
    # An index without the number of pods belongs to an Indexed Job that distrain did not render.
    return "indexed job" if "DISTRAIN_NUM_PODS" in given else ""


def _plain(given: Mapping[str, str], launcher: str) -> World:
    rank_name, size_name, local_rank_name, local_size_name = _VARIABLES[launcher]
    rank, size = _rank_and_size(given, rank_name, size_name)
    if local_rank_name not in given and local_size_name not in given:
        return World(rank, size, rank, size, launcher)
    local_rank, local_size = _rank_and_size(given, local_rank_name, local_size_name)
    _check_local_size(local_size_name, local_size, size)
    return World(rank, size, local_rank, local_size, launcher)


def _srun(given: Mapping[str, str]) -> World:
    rank, size = _rank_and_size(given, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
    local_rank, local_size = rank, size
    if all(name in given for name in ("SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_TASKS_PER_NODE")):
        local_rank = whole_number(given, "SLURM_LOCALID")
        local_size = _tasks_on_node(given["SLURM_STEP_TASKS_PER_NODE"], whole_number(given, "SLURM_NODEID"))
        if local_rank >= local_size:
            raise ConfigurationError(
                f"SLURM_LOCALID={local_rank}, but SLURM_STEP_TASKS_PER_NODE={given['SLURM_STEP_TASKS_PER_NODE']} puts "
                f"{local_size} tasks on node {given['SLURM_NODEID']}: local ranks count from 0. {_START_ONCE}"
            )
        _check_local_size("SLURM_STEP_TASKS_PER_NODE", local_size, size)
    return World(rank, size, local_rank, local_size, "srun", _slurm_rendezvous(given) if size > 1 else None)


def _indexed_job(given: Mapping[str, str]) -> World:
    pod, num_pods = _rank_and_size(given, "JOB_COMPLETION_INDEX", "DISTRAIN_NUM_PODS")
    with_defaults = {"DISTRAIN_LOCAL_RANK": "0", "DISTRAIN_RANKS_PER_POD": "1", **given}
    local_rank, local_size = _rank_and_size(with_defaults, "DISTRAIN_LOCAL_RANK", "DISTRAIN_RANKS_PER_POD")
    size = num_pods * local_size
    rendezvous = _own_rendezvous(given) if size > 1 else None
    return World(pod * local_size + local_rank, size, local_rank, local_size, "indexed job", rendezvous)


def _rank_and_size(given: Mapping[str, str], rank_name: str, size_name: str) -> tuple[int, int]:
    rank, size = whole_number(given, rank_name), whole_number(given, size_name)
    if rank >= size:
        raise ConfigurationError(
            f"{rank_name}={rank}, but {size_name}={size}: ranks count from 0 and are below the size. {_START_ONCE}"
        )
    return rank, size


def _check_local_size(name: str, local_size: int, size: int) -> None:
    if local_size > size:
        raise ConfigurationError(
            f"{name} puts {local_size} ranks on this host, but there are {size} in all. {_START_ONCE}"
        )


def whole_number(given: Mapping[str, str], name: str) -> int:
    """Return the value of a launcher's variable.

    Raises:
        ConfigurationError: the variable is missing, or is no whole number from 0.
    """
    value = given.get(name)
    if value is None:
        raise ConfigurationError(f"{name} is not set, although related variables are. {_START_ONCE}")
    if not re.fullmatch("[0-9]{1,18}", value):
        raise ConfigurationError(f"{name}={value[:40]!r} is not a whole number from 0. {_START_ONCE}")
    return int(value)


def _tasks_on_node(tasks_per_node: str, node: int) -> int:
    """Return the tasks of a node; "2(x3),1" means two tasks on each of three nodes, then one on the next node."""
    first = 0
    for group in tasks_per_node.split(","):
        parsed = re.fullmatch(r"([0-9]{1,9})(?:\(x([0-9]{1,9})\))?", group)
        if not parsed:
            break
        first += int(parsed[2] or 1)
        if node < first:
            return int(parsed[1])
    raise ConfigurationError(
        f"SLURM_STEP_TASKS_PER_NODE={tasks_per_node[:80]!r} does not say how many tasks node {node} (SLURM_NODEID) "
        f"has; it looks like '2(x3),1'. {_START_ONCE}"
    )


def _slurm_rendezvous(given: Mapping[str, str]) -> str:
    if "DISTRAIN_RENDEZVOUS" in given:
        return _own_rendezvous(given)
    nodes = given.get("SLURM_STEP_NODELIST") or given.get("SLURM_JOB_NODELIST", "")
    # Steps of one job, or successive jobs, may share a host, so each gets a port of its own.
    port = _FIRST_PORT + (16 * whole_number(given, "SLURM_JOB_ID") + whole_number(given, "SLURM_STEP_ID")) % _NUM_PORTS
    return f"{_first_host(nodes)}:{port}"


def _first_host(nodes: str) -> str:
    """Return the first host of a SLURM node list, such as "a1,b2" or "gpu-[001-004,7]"."""
    first = re.match(r"(?:[^,\[\]]|\[[^\[\]]*\])*", nodes)
    host = re.sub(r"\[([0-9]+)[0-9,-]*\]", r"\1", first[0] if first else "")
    if not re.fullmatch(_HOST, host):
        raise ConfigurationError(
            f"SLURM_STEP_NODELIST={nodes[:80]!r} names no host for rank 0. Set "
            "DISTRAIN_RENDEZVOUS=HOST:PORT: the host of rank 0, and a port that is free there."
        )
    return host


def _own_rendezvous(given: Mapping[str, str]) -> str:
    value = given.get("DISTRAIN_RENDEZVOUS", "")
    parsed = re.fullmatch(_HOST + ":([0-9]{1,5})", value)
    if not parsed or not 0 < int(parsed[1]) < 65536:
        raise ConfigurationError(
            f"DISTRAIN_RENDEZVOUS={value[:80]!r} is not HOST:PORT. Set it to a name or IPv4 address by which the "
            "other ranks reach the host of rank 0, and to a port that is free there: trainer-0.trainer:29400."
        )
    return value
