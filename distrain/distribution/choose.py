"""Four ways to distribute training, all with the interface of `base.Distribution`.

Decides: which one is used. Never: trains.

    distribution = choose(TrainConfig(data="data", run="run"), os.environ)
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from distrain.cluster.exit_process import exit_process
from distrain.cluster.placement import check_placement
from distrain.cluster.process_group import ProcessGroup
from distrain.cluster.world import World, find_world
from distrain.config import TrainConfig
from distrain.distribution.collectives.shared_memory import MAX_RANKS, share
from distrain.errors import ConfigurationError, RankError

if TYPE_CHECKING:
    from distrain.distribution.base import Distribution
    from distrain.distribution.multi_process import Collectives

START_SECONDS = 180.0  # longer than the slowest start seen; whoever waits for the others' TensorFlow waits here

_joined: list[Collectives] = []


def choose(config: TrainConfig, environ: Mapping[str, str]) -> Distribution:
    """The distribution to train under; joins the other processes, and fixes this one's devices.

    Args:
        config: its strategy ("auto": Horovod where it is built, else MPI, as one of several processes; mirrored with
            several devices; else single), devices and compression.
        environ: of this process, which tells of the others.

    Raises:
        ConfigurationError: the strategy or the devices cannot be had here.
        RankError: the other processes cannot be joined.
    """
    world = find_world(environ)
    strategy = config.strategy
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
    from distrain.distribution.devices import local_devices, prefetches

    names = local_devices(config.devices)
    ahead = prefetches(environ, world, on_gpu=names[0].startswith("GPU"))
    if strategy == "auto":
        strategy = "mirrored" if len(names) > 1 else "single"
    if strategy == "mirrored":
        from distrain.distribution.mirrored import Mirrored

        return Mirrored(names, prefetches=ahead)
    if len(names) > 1:
        raise ConfigurationError(
            f"--strategy single uses one device, but there are {len(names)} ({', '.join(names)}). "
            "Choose one with --devices gpu:0, or use --strategy mirrored."
        )
    from distrain.distribution.single import SingleDevice

    return SingleDevice(prefetches=ahead)


def _join(strategy: str, config: TrainConfig, world: World, environ: Mapping[str, str]) -> Distribution:
    package, cure = {
        "horovod": ("horovod", "Build it with ./launch/install_horovod.sh, or use --strategy mpi."),
        "mpi": ("mpi4py", "Install it with: pip install 'distrain[mpi]'"),
    }[strategy]
    if not _is_installed(package):
        raise ConfigurationError(f"--strategy {strategy} needs {package}, which is not installed. {cure}")
    if strategy == "mpi" and world.launcher == "srun" and not {"PMIX_RANK", "PMI_RANK"} & set(environ):
        raise ConfigurationError(  # MPI itself would end the process without a word that helps
            "srun started these processes without the help that MPI needs to join them. Use srun --mpi=pmix, "
            "launch/slurm.sbatch, or --strategy horovod."
        )
    from distrain.distribution.devices import own_device, prefetches
    from distrain.distribution.multi_process import MultiProcess

    on_gpu = own_device(environ, world, config.devices)  # before the backend touches TensorFlow
    for name, value in idle_settings(world, on_gpu=on_gpu).items():
        os.environ.setdefault(name, value)
    with _alarm(world):
        collectives: Collectives
        if strategy == "horovod":
            from distrain.distribution.collectives import horovod

            collectives = horovod
        else:
            from distrain.distribution.collectives import mpi

            collectives = mpi
        group = collectives.start(world, on_gpu=on_gpu)
        _check_placement(group, world)
        shared = share(group)
    if collectives not in _joined:
        _joined.append(collectives)
    ahead = prefetches(environ, world, on_gpu=on_gpu)
    return MultiProcess(collectives, group, compression=config.compression, shared=shared, prefetches=ahead)


def idle_settings(world: World, *, on_gpu: bool) -> dict[str, str]:
    """Variables for MPI and Horovod, which read them when they start, so that waiting takes no cores from the step.

    A rank that waits in Open MPI yields its core: to the loader, or, as Horovod's own thread waits all the time, to the
    step. Where nothing but a few words goes through Horovod, as ranks share memory, that thread looks for work 50
    times a second in place of 1,000. Measured in benchmarks/RESULTS.md.
    """
    settings = {"OMPI_MCA_mpi_yield_when_idle": "1"}
    if world.local_size == world.size <= MAX_RANKS and not on_gpu:
        settings["HOROVOD_CYCLE_TIME"] = "20"  # milliseconds
    return settings


@contextmanager
def _alarm(world: World) -> Iterator[None]:
    """End the process if the others do not come; until they have, nothing else watches them."""
    message = (
        f"rank {world.rank}: not all {world.size} ranks met within {START_SECONDS:g} s. One of them hangs, or they "
        "were started with different strategies. Look at what each says, and start them by one command."
    )
    seconds = START_SECONDS + 15 * (world.rank > 0)  # one message is enough, if rank 0 is there to give it
    alarm = threading.Timer(seconds, exit_process, (RankError.exit_code, message))
    alarm.daemon = True
    alarm.start()
    try:
        yield
    finally:
        alarm.cancel()


def leave() -> None:
    """Leave the other processes for good, where this one has joined any; all must call it.

    At the end of the process this happens anyway, but later.
    """
    while _joined:
        _joined.pop().stop()


def _check_placement(group: ProcessGroup, world: World) -> None:
    """Refuse processes that are not where their environment says, on all of them alike."""
    own = {"host": os.environ.get("HOROVOD_HOSTNAME") or socket.gethostname(), **asdict(world)}
    places = [json.loads(content) for content in group.all_gather_bytes(json.dumps(own).encode())]
    try:
        check_placement([(place.pop("host"), World(**place)) for place in places])
    except RankError as error:
        error.reporting_rank = 0 if len(places) > 1 else None
        raise


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
