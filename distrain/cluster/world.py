"""Environment -> World: which of how many processes this is, and its share of the machine.

Decides: rank, size, place on the host, GPU and threads of this process, from the launcher's variables. Never: starts,
joins or counts processes.

    >>> from distrain.cluster.world import find_world
    >>> find_world({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4",
    ...             "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"})
    World(rank=1, size=4, local_rank=1, local_size=2, launcher='mpirun', rendezvous=None)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distrain.errors import ConfigurationError, RankError

# Of each launcher that says it plainly: rank, size, local rank, local size.
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
_START_ONCE = "Start all processes by one launcher, and set none of its variables by hand."

# Above the ports of well-known services, below Kubernetes' node ports (30000) and Linux' ephemeral ports (32768).
_FIRST_PORT, _NUM_PORTS = 20_000, 10_000
_HOST = r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63}){0,9}"  # a name that can be looked up, or an IPv4 address


@dataclass(frozen=True)
class World:
    """This process among all processes of the run.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        local_rank: its number among those of its host.
        local_size: how many there are on its host.
        launcher: "horovodrun", "mpirun" (Open MPI), "mpich" (also Intel MPI), "srun", "indexed job"; "": started alone.
        rendezvous: "host:port" where rank 0 lets the others find each other; None where the launcher does that.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    launcher: str = ""
    rendezvous: str | None = None


def find_world(environ: Mapping[str, str]) -> World:
    """The world that the environment describes; one process where it describes none.

    Where several launchers left variables, the innermost counts: mpirun inside a SLURM job describes the ranks, and
    srun's variables in them describe its daemon. Where a launcher tells no local rank, all ranks are taken to be on one
    host; `check_places` finds out when they are not.

    Raises:
        ConfigurationError: a value is impossible, or one is missing beside others.
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


def cpu_threads(
    environ: Mapping[str, str], *, num_cores: int, local_size: int, machine_cores: int | None = None
) -> int:
    """Threads for this rank: its share of the cores, at least 1.

    Args:
        environ: of this process.
        num_cores: cores that this process may run on: `len(os.sched_getaffinity(0))`.
        local_size: ranks on this host.
        machine_cores: cores of the host, `os.cpu_count()`. Where given, cores that the launcher bound several ranks to
            together (a socket, Open MPI's default for more than two) are shared out too.

    Returns:
        The share; the cores are not divided again where the launcher has bound each rank to its own.

    Raises:
        ConfigurationError: SLURM_CPUS_PER_TASK is not a number.
    """
    given = {name: value for name, value in environ.items() if value}
    launcher = _launcher(given)
    if launcher == "srun" and "SLURM_CPUS_PER_TASK" in given:
        return max(1, min(num_cores, _number(given, "SLURM_CPUS_PER_TASK")))
    is_bound = (launcher == "mpirun" and given.get("OMPI_MCA_orte_bound_at_launch") == "1") or (
        launcher == "srun" and given.get("SLURM_CPU_BIND_TYPE", "none") != "none"
    )
    if not is_bound:
        return max(1, num_cores // local_size)
    return max(1, num_cores if machine_cores is None else min(num_cores, machine_cores // local_size))


def choose_gpu(environ: Mapping[str, str], world: World, num_gpus: int) -> int:
    """Which of the GPUs that this process sees is its own.

    Args:
        environ: of this process.
        world: this process among all.
        num_gpus: GPUs that it sees, at least 1.

    Returns:
        A number from 0; always 0 where each rank was given its own GPUs.

    Raises:
        ConfigurationError: there are more ranks on this host than GPUs.
    """
    if world.launcher == "srun" and num_gpus <= _gpus_per_task(environ):
        return 0
    # A wrapper that gives each rank the GPU of its local rank.
    if num_gpus == 1 and environ.get("CUDA_VISIBLE_DEVICES") == str(world.local_rank):
        return 0
    if world.local_size > num_gpus:
        raise ConfigurationError(
            f"{world.local_size} ranks on this host see {num_gpus} GPU(s) (CUDA_VISIBLE_DEVICES="
            f"{environ.get('CUDA_VISIBLE_DEVICES', '(not set)')}); each rank needs one of its own. Start at most "
            f"{num_gpus} per host, let the ranks see all GPUs, or train on the CPU with --devices cpu:1."
        )
    return world.local_rank


def check_places(places: Sequence[tuple[str, World]]) -> None:
    """Check that the processes which found each other are those that the environment describes.

    Args:
        places: host name and world of each process, in the order in which the collectives number them.

    Raises:
        RankError: a size or rank is another than the environment says, two ranks claim one place, or a host holds other
            local ranks than they say.
    """
    size = len(places)
    for number, (host, world) in enumerate(places):
        whose = f"rank {world.rank} of {world.size} on {host}" + (f" ({world.launcher})" if world.launcher else "")
        if world.size != size:
            found = "no other process found it" if size == 1 else f"{size} processes found each other"
            raise RankError(
                f"The environment says {whose}, but {found}. Probably the mpirun belongs to another MPI than the one "
                "that mpi4py or Horovod uses, or the processes were started by two launchers. Start all of them by one "
                "launcher: the mpirun or horovodrun that stands beside this distrain."
            )
        if world.rank != number:
            raise RankError(
                f"The environment says {whose}, but among the processes it is number {number}. Probably they were "
                "started by two launchers, or by hand with a wrong number. Start all of them by one launcher."
            )
    _check_hosts(places)


def _check_hosts(places: Sequence[tuple[str, World]]) -> None:
    ranks_at: dict[tuple[str, int], int] = {}
    for host, world in places:
        other = ranks_at.setdefault((host, world.local_rank), world.rank)
        if other != world.rank:
            raise RankError(
                f"Ranks {other} and {world.rank} both say that they are local rank {world.local_rank} on {host}, and "
                "would use the same GPU. Probably they were started by two launchers, or by hand twice; or two "
                f"machines have one name. {_START_ONCE}"
            )
    num_on = Counter(host for host, _ in places)
    for host, world in places:
        if world.local_size != num_on[host]:
            raise RankError(
                f"Rank {world.rank} says that {world.local_size} ranks run on {host}, but {num_on[host]} are there; "
                "they would choose wrong GPUs and threads. Use a launcher that tells local ranks (all but some mpiexec "
                "do), or set HOROVOD_RANK, HOROVOD_SIZE, HOROVOD_LOCAL_RANK and HOROVOD_LOCAL_SIZE. Containers on one "
                "machine must have its host name."
            )


def _launcher(given: Mapping[str, str]) -> str:
    for launcher in ("horovodrun", "mpirun"):
        if any(name in given for name in _VARIABLES[launcher][:2]):
            return launcher
    # A batch script is no step: it has a SLURM_PROCID too, but is one process.
    is_step = "SLURM_PROCID" in given and "SLURM_STEP_NUM_TASKS" in given
    # srun --mpi=pmi2 may set PMI_RANK too, but no local rank. Under MPICH's mpiexec the step is that of its daemon.
    if ("PMI_RANK" in given or "PMI_SIZE" in given) and ("MPI_LOCALRANKID" in given or not is_step):
        return "mpich"
    if is_step:
        return "srun"
    # An index without the number of pods is somebody else's Indexed Job.
    return "indexed job" if "DISTRAIN_NUM_PODS" in given else ""


def _plain(given: Mapping[str, str], launcher: str) -> World:
    rank_name, size_name, local_rank_name, local_size_name = _VARIABLES[launcher]
    rank, size = _place(given, rank_name, size_name)
    if local_rank_name not in given and local_size_name not in given:
        return World(rank, size, rank, size, launcher)
    local_rank, local_size = _place(given, local_rank_name, local_size_name)
    _check_local_size(local_size_name, local_size, size)
    return World(rank, size, local_rank, local_size, launcher)


def _srun(given: Mapping[str, str]) -> World:
    rank, size = _place(given, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
    local_rank, local_size = rank, size
    if all(name in given for name in ("SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_TASKS_PER_NODE")):
        local_rank = _number(given, "SLURM_LOCALID")
        local_size = _tasks_on_node(given["SLURM_STEP_TASKS_PER_NODE"], _number(given, "SLURM_NODEID"))
        if local_rank >= local_size:
            raise ConfigurationError(
                f"SLURM_LOCALID={local_rank}, but SLURM_STEP_TASKS_PER_NODE={given['SLURM_STEP_TASKS_PER_NODE']} puts "
                f"{local_size} tasks on node {given['SLURM_NODEID']}: local ranks count from 0. {_START_ONCE}"
            )
        _check_local_size("SLURM_STEP_TASKS_PER_NODE", local_size, size)
    return World(rank, size, local_rank, local_size, "srun", _slurm_rendezvous(given) if size > 1 else None)


def _indexed_job(given: Mapping[str, str]) -> World:
    pod, num_pods = _place(given, "JOB_COMPLETION_INDEX", "DISTRAIN_NUM_PODS")
    with_defaults = {"DISTRAIN_LOCAL_RANK": "0", "DISTRAIN_RANKS_PER_POD": "1", **given}
    local_rank, local_size = _place(with_defaults, "DISTRAIN_LOCAL_RANK", "DISTRAIN_RANKS_PER_POD")
    size = num_pods * local_size
    rendezvous = _own_rendezvous(given) if size > 1 else None
    return World(pod * local_size + local_rank, size, local_rank, local_size, "indexed job", rendezvous)


def _place(given: Mapping[str, str], rank_name: str, size_name: str) -> tuple[int, int]:
    rank, size = _number(given, rank_name), _number(given, size_name)
    if rank >= size:
        raise ConfigurationError(
            f"{rank_name}={rank}, but {size_name}={size}: the one counts from 0 and is below the other. {_START_ONCE}"
        )
    return rank, size


def _check_local_size(name: str, local_size: int, size: int) -> None:
    if local_size > size:
        raise ConfigurationError(
            f"{name} puts {local_size} ranks on this host, but there are {size} in all. {_START_ONCE}"
        )


def _number(given: Mapping[str, str], name: str) -> int:
    value = given.get(name)
    if value is None:
        raise ConfigurationError(f"{name} is not set, but belongs to variables that are. {_START_ONCE}")
    if not re.fullmatch("[0-9]{1,18}", value):
        raise ConfigurationError(f"{name}={value[:40]!r} is not a whole number from 0. {_START_ONCE}")
    return int(value)


def _tasks_on_node(tasks_per_node: str, node: int) -> int:
    """SLURM's "2(x3),1": two tasks on each of three nodes, then one on the next."""
    first = 0
    for run in tasks_per_node.split(","):
        parsed = re.fullmatch(r"([0-9]{1,9})(?:\(x([0-9]{1,9})\))?", run)
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
    # Two steps of one job, or two jobs that follow each other, may share a host: they get different ports.
    port = _FIRST_PORT + (16 * _number(given, "SLURM_JOB_ID") + _number(given, "SLURM_STEP_ID")) % _NUM_PORTS
    return f"{_first_host(nodes)}:{port}"


def _first_host(nodes: str) -> str:
    """The first host of SLURM's "a1,b2" or "gpu-[001-004,7]"."""
    first = re.match(r"(?:[^,\[\]]|\[[^\[\]]*\])*", nodes)
    host = re.sub(r"\[([0-9]+)[0-9,-]*\]", r"\1", first[0] if first else "")
    if not re.fullmatch(_HOST, host):
        raise ConfigurationError(
            f"SLURM_STEP_NODELIST={nodes[:80]!r} names no host that rank 0 could be on. Set "
            "DISTRAIN_RENDEZVOUS=HOST:PORT: the host of rank 0, and a port that is free there."
        )
    return host


def _own_rendezvous(given: Mapping[str, str]) -> str:
    value = given.get("DISTRAIN_RENDEZVOUS", "")
    parsed = re.fullmatch(_HOST + ":([0-9]{1,5})", value)
    if not parsed or not 0 < int(parsed[1]) < 65536:
        raise ConfigurationError(
            f"DISTRAIN_RENDEZVOUS={value[:80]!r} is not HOST:PORT. Set it to the host of rank 0 as the other ranks "
            "know it (a name or an IPv4 address), and to a port that is free there: trainer-0.trainer:29400."
        )
    return value


def _gpus_per_task(environ: Mapping[str, str]) -> int:
    """GPUs that srun gave to this task alone; 0 where tasks share those of the host."""
    # --gpus-per-task: "1", "a100:1"; newer releases write "cpu=4,gres/gpu:a100=1" or "gres/gpu:1".
    per_task = re.search(r"([0-9]{1,4})$", environ.get("SLURM_GPUS_PER_TASK", "")) or re.search(
        r"gres/gpu(?:[:=][A-Za-z][^,:=]*)?[:=]([0-9]{1,4})", environ.get("SLURM_TRES_PER_TASK", "")
    )
    if per_task:
        return int(per_task[1])
    # --gpu-bind=single:1, map_gpu:..., which leave one to a task.
    is_bound = any(environ.get(name, "none") != "none" for name in ("SLURM_GPU_BIND", "SLURM_TRES_BIND"))
    return 1 if is_bound else 0
