"""Where the ranks of a job run: hosts, GPUs and cores.

Decides: the GPU and the number of threads of this rank, and whether all ranks run where their environment says. Never:
pins a device, or starts a thread.

    >>> from distrain.cluster.placement import choose_gpu, cpu_threads
    >>> from distrain.cluster.world import World
    >>> world = World(rank=3, size=4, local_rank=1, local_size=2, launcher="mpirun")
    >>> choose_gpu({}, world, num_gpus=2), cpu_threads({}, world, num_cores=8)
    (1, 4)
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from distrain.cluster.world import World, whole_number
from distrain.errors import ConfigurationError, RankError


def cpu_threads(environ: Mapping[str, str], world: World, *, num_cores: int, machine_cores: int | None = None) -> int:
    """Return the number of threads for this rank: its part of the cores, at least 1.

    Args:
        environ: environment variables of this process.
        world: this process among all processes of the job.
        num_cores: cores that this process may use: `len(os.sched_getaffinity(0))`.
        machine_cores: cores of the host, `os.cpu_count()`. If given, ranks that the launcher bound to one socket divide
            its cores. Open MPI binds more than two ranks so by default.

    Returns:
        The number of threads. If the launcher bound each rank to cores of its own, nothing is divided.

    Raises:
        ConfigurationError: SLURM_CPUS_PER_TASK is not a number.
    """
    if world.launcher == "srun" and environ.get("SLURM_CPUS_PER_TASK"):
        return max(1, min(num_cores, whole_number(environ, "SLURM_CPUS_PER_TASK")))
    is_bound = (world.launcher == "mpirun" and environ.get("OMPI_MCA_orte_bound_at_launch") == "1") or (
        world.launcher == "srun" and environ.get("SLURM_CPU_BIND_TYPE", "none") not in ("", "none")
    )
    if not is_bound:
        return max(1, num_cores // world.local_size)
    return max(1, num_cores if machine_cores is None else min(num_cores, machine_cores // world.local_size))


def own_cores(environ: Mapping[str, str], world: World) -> int:
    """Return the number of threads for this rank on this machine; see `cpu_threads`."""
    return cpu_threads(environ, world, num_cores=len(os.sched_getaffinity(0)), machine_cores=os.cpu_count())


def choose_gpu(environ: Mapping[str, str], world: World, num_gpus: int) -> int:
    """Return the index of this rank's GPU among the GPUs that this process sees.

    Args:
        environ: environment variables of this process.
        world: this process among all processes of the job.
        num_gpus: GPUs that this process sees, at least 1.

    Returns:
        An index from 0; always 0 if the launcher gave each rank GPUs of its own.

    Raises:
        ConfigurationError: this host has more ranks than GPUs.
    """
    if world.launcher == "srun" and num_gpus <= _gpus_per_task(environ):
        return 0
    # A wrapper script may set CUDA_VISIBLE_DEVICES to the local rank.
    if num_gpus == 1 and environ.get("CUDA_VISIBLE_DEVICES") == str(world.local_rank):
        return 0
    if world.local_size > num_gpus:
        raise ConfigurationError(
            f"{world.local_size} ranks on this host see {num_gpus} GPU(s) (CUDA_VISIBLE_DEVICES="
            f"{environ.get('CUDA_VISIBLE_DEVICES', '(not set)')}); each rank needs a GPU of its own. Start at most "
            f"{num_gpus} per host, let the ranks see all GPUs, or train on the CPU with --devices cpu:1."
        )
    return world.local_rank


def _gpus_per_task(environ: Mapping[str, str]) -> int:
    """Return how many GPUs srun gave to this task alone; 0 if the tasks of a host share its GPUs."""
    # --gpus-per-task sets "1" or "a100:1"; newer releases write "cpu=4,gres/gpu:a100=1" or "gres/gpu:1".
    per_task = re.search(r"([0-9]{1,4})$", environ.get("SLURM_GPUS_PER_TASK", "")) or re.search(
        r"gres/gpu(?:[:=][A-Za-z][^,:=]*)?[:=]([0-9]{1,4})", environ.get("SLURM_TRES_PER_TASK", "")
    )
    if per_task:
        return int(per_task[1])
    # --gpu-bind=single:1 or map_gpu:... leaves one GPU to each task.
    is_bound = any(environ.get(name, "none") != "none" for name in ("SLURM_GPU_BIND", "SLURM_TRES_BIND"))
    return 1 if is_bound else 0


def grouped(models: Sequence[str]) -> str:
    """Return the models of several devices with their numbers, such as "4 x NVIDIA H200"; one device stands alone."""
    numbers = Counter(models)
    return models[0] if len(models) == 1 else ", ".join(f"{number} x {model}" for model, number in numbers.items())


def check_placement(placement: Sequence[tuple[str, World]]) -> None:
    """Check that the connected processes are the processes that the environment describes.

    Args:
        placement: host name and world of each process, in the order in which the collectives number the processes.

    Raises:
        RankError: a size or rank differs from the environment, two ranks have one local rank, or a host has another
            number of ranks than they say.
    """
    size = len(placement)
    for rank, (host, world) in enumerate(placement):
        own = f"rank {world.rank} of {world.size} on {host}" + (f" ({world.launcher})" if world.launcher else "")
        if world.size != size:
            found = "no other process connected to it" if size == 1 else f"{size} processes connected"
            raise RankError(
                f"The environment says {own}, but {found}. Probably the mpirun belongs to another MPI than mpi4py or "
                "Horovod, or two launchers started the processes. Start all of them by one launcher: the mpirun or "
                "horovodrun in the folder of this distrain command."
            )
        if world.rank != rank:
            raise RankError(
                f"The environment says {own}, but the collectives number this process {rank}. Probably two launchers "
                "started the processes, or a number was set by hand. Start all of them by one launcher."
            )
    _check_hosts(placement)


def _check_hosts(placement: Sequence[tuple[str, World]]) -> None:
    ranks_at: dict[tuple[str, int], int] = {}
    for host, world in placement:
        other = ranks_at.setdefault((host, world.local_rank), world.rank)
        if other != world.rank:
            raise RankError(
                f"Ranks {other} and {world.rank} both have local rank {world.local_rank} on {host}, and would use the "
                "same GPU. Probably two launchers started them, or two machines have one name. Start all processes by "
                "one launcher, and set none of its variables by hand."
            )
    num_ranks = Counter(host for host, _ in placement)
    for host, world in placement:
        if world.local_size != num_ranks[host]:
            raise RankError(
                f"Rank {world.rank} says that {world.local_size} ranks run on {host}, but {num_ranks[host]} are there; "
                "they would choose wrong GPUs and threads. Use a launcher that sets local ranks (all but some mpiexec "
                "do), or set HOROVOD_RANK, HOROVOD_SIZE, HOROVOD_LOCAL_RANK and HOROVOD_LOCAL_SIZE. Containers on one "
                "machine must have its host name."
            )
