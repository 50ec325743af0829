"""The choice among four distributions, all with the interface of `base.Distribution`.

Decides: which distribution a run uses. Never: trains.

    distribution = choose(TrainConfig(data="data", run="run"), os.environ)
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from distrain.cluster.error_relay import run_on_all_ranks
from distrain.cluster.exit_process import exit_process
from distrain.cluster.placement import check_placement
from distrain.cluster.process_group import ProcessGroup
from distrain.cluster.world import World, find_world
from distrain.config import TrainConfig
from distrain.distribution.collectives.shared_memory import MAX_RANKS, open_shared_memory
from distrain.distribution.collectives.shared_memory_all_reduce import SharedMemoryCollectives
from distrain.distribution.collectives.shared_memory_group import SharedMemoryGroup
from distrain.errors import ConfigurationError, RankError
from distrain.extras import install_command

if TYPE_CHECKING:
    from distrain.distribution.base import Distribution
    from distrain.distribution.multi_process import Collectives

_LOG = logging.getLogger(__name__)

START_SECONDS = 180.0  # longer than the slowest observed start; ranks wait here while others import TensorFlow
LEAVE_SECONDS = 60.0  # longer than the chief takes to write its report, for which the other ranks wait

_joined: list[Collectives] = []


def choose(config: TrainConfig, environ: Mapping[str, str]) -> Distribution:
    """Return the distribution of a run; connect to the other processes and fix the devices of this process.

    Args:
        config: strategy, devices and compression. With several processes, "auto" chooses Horovod if it is installed,
            else MPI; in one process, mirrored for several devices, else single.
        environ: environment variables of this process, from which rank and size come.

    Raises:
        ConfigurationError: the strategy or the devices are not available here.
        RankError: this process cannot connect to the others.
    """
    world = find_world(environ)
    strategy = config.strategy
    if config.deterministic:
        from distrain.distribution.devices import make_deterministic

        make_deterministic()
    if strategy == "auto" and world.size > 1:
        strategy = "horovod" if _is_installed("horovod") else "mpi"
    if strategy in ("horovod", "mpi"):
        return _join(strategy, config, world, environ)
    if world.size > 1:
        raise ConfigurationError(
            f"This is process {world.rank} of {world.size} (started by {world.launcher}), but --strategy {strategy} "
            "trains in one process: each would train a model of its own. Use --strategy horovod or mpi, or start "
            "'distrain train' directly."
        )
    distribution, models = _in_one_process(strategy, config, world, environ)
    distribution.device_models = models
    on_gpu = "CPU" not in models
    distribution.runs_ahead = on_gpu
    distribution.batch_devices = [f"GPU:{number}" for number in range(len(models))] if on_gpu else []
    return distribution


def _in_one_process(
    strategy: str, config: TrainConfig, world: World, environ: Mapping[str, str]
) -> tuple[Distribution, list[str]]:
    """Return a distribution of this process alone, and the model of each replica's device."""
    from distrain.distribution.devices import local_devices, models_of, prefetches

    names = local_devices(environ, config.devices)
    models = models_of(names)
    ahead = prefetches(environ, world, on_gpu=names[0].startswith("GPU"))
    if strategy == "auto":
        strategy = "mirrored" if len(names) > 1 else "single"
    if strategy == "mirrored" and len(set(names)) < len(names):
        from distrain.distribution.shared_device import SharedDevice

        _LOG.warning(
            f"TensorFlow was in use before distrain could make {config.devices}, so the {len(names)} replicas take "
            "turns on one CPU device; the model is the same."
        )
        return SharedDevice(len(names), prefetches=ahead), models
    if strategy == "mirrored":
        from distrain.distribution.mirrored import Mirrored

        return Mirrored(names, prefetches=ahead), models
    if len(names) > 1:
        raise ConfigurationError(
            f"--strategy single uses one device, but there are {len(names)} ({', '.join(names)}). "
            "Choose one with --devices gpu:0, or use --strategy mirrored."
        )
    from distrain.distribution.single import SingleDevice

    return SingleDevice(prefetches=ahead), models


def _join(strategy: str, config: TrainConfig, world: World, environ: Mapping[str, str]) -> Distribution:
    package, cure = {
        "horovod": ("horovod", "Build it with distrain install-horovod, or use --strategy mpi."),
        "mpi": ("mpi4py", f"Install it with: {install_command('mpi')}"),
    }[strategy]
    if not _is_installed(package):
        raise ConfigurationError(f"--strategy {strategy} needs {package}, which is not installed. {cure}")
    if strategy == "mpi" and world.launcher == "srun" and not {"PMIX_RANK", "PMI_RANK"} & set(environ):
        raise ConfigurationError(  # MPI itself would end the process without a helpful message
            "srun started these processes without the PMI server that MPI needs to connect them. Use srun --mpi=pmix, "
            "launch/slurm.sbatch, or --strategy horovod."
        )
    from distrain.distribution.device_agreement import agree_on_devices, own_device_or_error
    from distrain.distribution.devices import CPU, prefetches
    from distrain.distribution.multi_process import MultiProcess

    own = own_device_or_error(environ, world, config.devices)  # before the backend touches TensorFlow
    on_gpu = isinstance(own, str) and own != CPU
    set_idle_variables(world, shares_memory=not on_gpu)
    with _alarm(world):
        collectives: Collectives
        if strategy == "horovod":
            from distrain.distribution.collectives import horovod

            collectives = horovod
        else:
            from distrain.distribution.collectives import mpi

            collectives = mpi
        group = collectives.start(world)
        _check_placement(group, world)
        models = agree_on_devices(group, own)
        if on_gpu:
            run_on_all_ranks(group, collectives.check_gpu_support)
        memory = open_shared_memory(group)
        if memory and not on_gpu:  # on GPUs the host runs ahead, and sums may use the memory in another thread
            group = SharedMemoryGroup(memory, group)
    if collectives not in _joined:
        _joined.append(collectives)
    ahead = prefetches(environ, world, on_gpu=on_gpu)
    host_collectives = SharedMemoryCollectives(memory) if memory else None
    distribution = MultiProcess(
        collectives, group, compression=config.compression, host_collectives=host_collectives, prefetches=ahead
    )
    distribution.device_models = models
    distribution.runs_ahead = on_gpu
    distribution.batch_devices = ["GPU:0"] if on_gpu else []
    return distribution


def set_idle_variables(world: World, *, shares_memory: bool) -> None:
    """Set variables that MPI and Horovod read at their start, so that waiting takes no core from the step.

    A variable that is set already stays.

    A rank that waits in Open MPI yields its core to the step or the loader. If ranks sum in shared memory, Horovod's
    thread wakes 50 times a second, not a thousand times. Over Gloo, cycles of 10 and 50 ms made steps of two ranks 9 to
    27% shorter (2026-11-21, benchmarks/LOG.md).

    Args:
        world: the position of this rank.
        shares_memory: whether ranks of one machine sum in shared memory.
    """
    os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
    if shares_memory and world.local_size == world.size <= MAX_RANKS:
        os.environ.setdefault("HOROVOD_CYCLE_TIME", "20")  # milliseconds


@contextmanager
def _alarm(world: World) -> Iterator[None]:
    """End the process if other ranks do not connect in time: no failure detector runs before they connect."""
    message = (
        f"rank {world.rank}: not all {world.size} ranks connected within {START_SECONDS:g} s. A rank hangs, or they "
        "were started with different strategies. Read the messages of each rank, and start all ranks by one command."
    )
    seconds = START_SECONDS + 15 * (world.rank > 0)  # rank 0 prints the message first, if rank 0 lives
    alarm = threading.Timer(seconds, exit_process, (RankError.exit_code, message))
    alarm.daemon = True
    alarm.start()
    try:
        yield
    finally:
        alarm.cancel()


def leave(code: int) -> None:
    """Disconnect from the other processes for good, before the process ends; all processes must call this.

    Args:
        code: this process exits with this code if the other processes, or a launcher that hangs, let it wait for
            longer than `LEAVE_SECONDS`.
    """
    alarm = threading.Timer(LEAVE_SECONDS, exit_process, (code, None))
    alarm.daemon = True
    alarm.start()
    while _joined:
        _joined.pop().stop()
    alarm.cancel()


def _check_placement(group: ProcessGroup, world: World) -> None:
    """Refuse ranks whose hosts contradict their environment, on all ranks alike."""
    own = {"host": os.environ.get("HOROVOD_HOSTNAME") or socket.gethostname(), **asdict(world)}
    places = [json.loads(content) for content in group.all_gather_bytes(json.dumps(own).encode())]
    try:
        check_placement([(place.pop("host"), World(**place)) for place in places])
    except RankError as error:
        error.reporting_rank = 0 if len(places) > 1 else None
        raise


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
