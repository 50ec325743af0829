"""The devices and the number of threads that this process uses.

Decides: which devices TensorFlow sees in this process. Never: what runs on a device.

    names = local_devices("cpu:2")                       # all replicas of a run in one process
    on_gpu = own_device(os.environ, world, None)         # the replica of one of many processes

Both functions must run before TensorFlow first uses a device in this process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from distrain.cluster.placement import choose_gpu, cpu_threads
from distrain.cluster.world import World
from distrain.errors import ConfigurationError

_LOG = logging.getLogger(__name__)


def local_devices(wanted: str | None) -> list[str]:
    """Return TensorFlow's names of the devices of a run in one process, one per replica.

    The CPU stands N times if TensorFlow uses it already, and so cannot divide it into N logical devices.

    Args:
        wanted: "cpu:N" for N logical CPU devices, "gpu:0,1" for these GPUs; None for all GPUs, else the CPU.

    Raises:
        ConfigurationError: a device is missing, or TensorFlow already uses other devices.
    """
    gpus = tf.config.list_physical_devices("GPU")
    kind, numbers = _parsed(wanted, len(gpus))
    try:
        if kind == "cpu":
            cpu = tf.config.list_physical_devices("CPU")[0]
            if gpus:
                tf.config.set_visible_devices([], "GPU")
            if len(numbers) > 1 and not _divide(cpu, len(numbers)):
                return ["CPU:0"] * len(numbers)
            return [f"CPU:{number}" for number in numbers]
        tf.config.set_visible_devices([gpus[number] for number in numbers], "GPU")
        return [f"GPU:{index}" for index in range(len(numbers))]
    except RuntimeError as error:
        raise _too_late(wanted, error) from None


def own_device(environ: Mapping[str, str], world: World, wanted: str | None) -> bool:
    """Pin this rank to its GPU or to the CPU, and give TensorFlow this rank's fraction of the cores.

    Args:
        environ: environment variables of this process.
        world: rank and size of this process.
        wanted: "cpu:1" for the CPU, "gpu:0,1" for GPUs that the local ranks divide among themselves; None for all GPUs,
            else the CPU.

    Returns:
        Whether this rank computes on a GPU.

    Raises:
        ConfigurationError: there are fewer GPUs than local ranks, or TensorFlow already uses other devices.
    """
    gpus = tf.config.list_physical_devices("GPU")
    kind, numbers = _parsed(wanted, len(gpus))
    if kind == "cpu" and len(numbers) > 1:
        raise ConfigurationError(
            f"--devices {wanted} asks for {len(numbers)} replicas in each of {world.size} processes; a process has one "
            "replica then. Use --devices cpu:1, and more processes."
        )
    num_threads = _own_cores(environ, world)
    chosen = [gpus[numbers[choose_gpu(environ, world, len(numbers))]]] if kind == "gpu" else []
    try:
        tf.config.threading.set_intra_op_parallelism_threads(num_threads)
        tf.config.threading.set_inter_op_parallelism_threads(num_threads)
    except RuntimeError:
        _LOG.warning(
            f"TensorFlow was in use before distrain could limit rank {world.rank} to {num_threads} threads, so its "
            "steps may be slower. A function in place of an object avoids this: optimizer=lambda: "
            "keras.optimizers.Adam(1e-3)."
        )
    try:
        if gpus:
            tf.config.set_visible_devices(chosen, "GPU")
    except RuntimeError as error:
        raise _too_late(wanted, error) from None
    return bool(chosen)


def prefetches(environ: Mapping[str, str], world: World, *, on_gpu: bool) -> bool:
    """Return whether a thread should make batches while steps run: see `base.Distribution`."""
    return on_gpu or _own_cores(environ, world) > 1


def _divide(cpu: Any, num_devices: int) -> bool:
    """Make logical devices of the CPU; return whether there are enough, also from an earlier run of this process."""
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_devices)
    except RuntimeError:
        return len(tf.config.list_logical_devices("CPU")) >= num_devices
    return True


def _own_cores(environ: Mapping[str, str], world: World) -> int:
    return cpu_threads(environ, world, num_cores=len(os.sched_getaffinity(0)), machine_cores=os.cpu_count())


def _parsed(wanted: str | None, num_gpus: int) -> tuple[str, list[int]]:
    kind, _, numbers = (wanted or ("gpu" if num_gpus else "cpu:1")).partition(":")
    if kind == "cpu":
        return kind, list(range(int(numbers)))
    chosen = [int(number) for number in numbers.split(",")] if numbers else list(range(num_gpus))
    if len(set(chosen)) != len(chosen) or any(number >= num_gpus for number in chosen):
        raise ConfigurationError(
            f"--devices {wanted} names a GPU twice or one that is not there: TensorFlow sees {num_gpus} GPUs "
            "here. Name other devices, or try --devices cpu:2."
        )
    return kind, chosen


def _too_late(wanted: str | None, error: RuntimeError) -> ConfigurationError:
    return ConfigurationError(
        f"--devices {wanted or '(the default)'} came too late: TensorFlow uses other devices in this process already "
        f"({error}). Start a fresh process, and make no optimizer or metric before distrain.fit or "
        "distrain.horovod.init is called: give distrain.fit a function, optimizer=lambda: keras.optimizers.Adam(1e-3), "
        "or compile the model in build_model."
    )
