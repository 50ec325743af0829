"""The devices and the number of threads that this process uses.

Decides: which devices TensorFlow sees in this process. Never: what runs on a device.

    names = local_devices(os.environ, "cpu:2")           # all replicas of a run in one process
    device = own_device(os.environ, world, None)         # the replica of one of many processes
    use_one_device(os.environ, "gpu:1")                  # a command that does not train

These functions must run before TensorFlow first uses a device in this process.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from distrain.cluster import nvidia
from distrain.cluster.placement import choose_gpu, grouped, own_cores
from distrain.cluster.world import World
from distrain.config.setting import require
from distrain.distribution.usable_gpus import let_memory_grow, model_of, refuse_silent_cpu, unusable_reason
from distrain.errors import ConfigurationError

_LOG = logging.getLogger(__name__)


CPU = "CPU"  # name of a device that is no GPU


def local_devices(environ: Mapping[str, str], wanted: str | None) -> list[str]:
    """Return TensorFlow's names of the devices of a run in one process, one per replica.

    The CPU stands N times if TensorFlow uses it already, and so cannot divide it into N logical devices.

    Args:
        environ: environment variables of this process.
        wanted: "cpu:N" for N logical CPU devices, "gpu:0,1" for these GPUs; None for all GPUs, else the CPU.

    Raises:
        ConfigurationError: a device is missing, TensorFlow cannot use the GPUs that are there, or it already uses other
            devices.
    """
    kind, numbers, gpus = _wanted(environ, wanted)
    try:
        if kind == "cpu":
            cpu = tf.config.list_physical_devices("CPU")[0]
            if gpus:
                tf.config.set_visible_devices([], "GPU")
            if len(numbers) > 1 and not _divide(cpu, len(numbers)):
                return ["CPU:0"] * len(numbers)
            return [f"CPU:{number}" for number in numbers]
        _show([gpus[number] for number in numbers])
        return [f"GPU:{index}" for index in range(len(numbers))]
    except RuntimeError as error:
        raise _too_late(wanted, error) from None


def models_of(names: Sequence[str]) -> list[str]:
    """Return the model of each device that `local_devices` returned, such as "NVIDIA H200" or "CPU"."""
    visible = tf.config.get_visible_devices("GPU")
    return [model_of(visible[int(name[4:])]) if name.startswith("GPU:") else CPU for name in names]


def use_one_device(environ: Mapping[str, str], wanted: str | None) -> None:
    """Let this process compute on one device: the first GPU or the GPU that `wanted` names, else the CPU.

    A program that has used its GPUs already keeps them.

    Raises:
        ConfigurationError: the GPU is missing or not usable, or `wanted` is no name of one device.
    """
    rule = "cpu, or gpu:N for the GPU with this number, because this command uses one device"
    require(wanted is None or re.fullmatch(r"cpu(:1)?|gpu:\d{1,4}", wanted) is not None, "--devices", wanted, rule)
    kind, numbers, gpus = _wanted(environ, wanted)
    try:
        _show([gpus[numbers[0]]] if kind == "gpu" else [])
    except RuntimeError as error:
        if wanted is not None:
            raise _too_late(wanted, error) from None


def own_device(environ: Mapping[str, str], world: World, wanted: str | None) -> str:
    """Pin this rank to its GPU or to the CPU, and give TensorFlow this rank's fraction of the cores.

    Args:
        environ: environment variables of this process.
        world: rank and size of this process.
        wanted: "cpu:1" for the CPU, "gpu:0,1" for GPUs that the local ranks divide among themselves; None for all GPUs,
            else the CPU.

    Returns:
        The model of this rank's GPU, such as "NVIDIA H200", or "CPU".

    Raises:
        ConfigurationError: there are fewer GPUs than local ranks, TensorFlow cannot use the GPUs that are there, or
            it already uses other devices.
    """
    kind, numbers, gpus = _wanted(environ, wanted)
    if kind == "cpu" and len(numbers) > 1:
        raise ConfigurationError(
            f"--devices {wanted} asks for {len(numbers)} replicas in each of {world.size} processes; a process has one "
            "replica then. Use --devices cpu:1, and more processes."
        )
    num_threads = own_cores(environ, world)
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
            _show(chosen)
    except RuntimeError as error:
        raise _too_late(wanted, error) from None
    return model_of(chosen[0]) if chosen else CPU


def make_deterministic() -> None:
    """Let every operation of this process give the same bits in each run, and multiply in full float32 on GPUs.

    TensorFlow offers no way back, so this lasts until the process ends.
    """
    tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(False)


def prefetches(environ: Mapping[str, str], world: World, *, on_gpu: bool) -> bool:
    """Return whether a thread should make batches while steps run: see `base.Distribution`."""
    return on_gpu or own_cores(environ, world) > 1


def _divide(cpu: Any, num_devices: int) -> bool:
    """Make logical devices of the CPU; return whether there are enough, also from an earlier run of this process."""
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_devices)
    except RuntimeError:
        return len(tf.config.list_logical_devices("CPU")) >= num_devices
    return True


def _show(gpus: Sequence[Any]) -> None:
    """Let TensorFlow see these GPUs alone, and let their memory grow."""
    tf.config.set_visible_devices(list(gpus), "GPU")
    let_memory_grow(gpus)


def _wanted(environ: Mapping[str, str], wanted: str | None) -> tuple[str, list[int], list[Any]]:
    """Return "cpu" or "gpu", the numbers of the wanted devices, and all GPUs that TensorFlow sees."""
    kind, _, numbers = (wanted or "").partition(":")
    if wanted is None:
        refuse_silent_cpu(environ)
    gpus = tf.config.list_physical_devices("GPU")
    if kind == "cpu" or (wanted is None and not gpus):
        return "cpu", list(range(int(numbers or 1))), gpus
    chosen = [int(number) for number in numbers.split(",")] if numbers else list(range(len(gpus)))
    twice = next((number for number in chosen if chosen.count(number) > 1), None)
    if twice is not None:
        raise ConfigurationError(f"--devices {wanted} names GPU {twice} twice; name each GPU once.")
    absent = next((number for number in chosen if number >= len(gpus)), None)
    if absent is not None:
        raise ConfigurationError(f"--devices {wanted}: {_why_absent(environ, absent, len(gpus))}")
    return "gpu", chosen, gpus


def _why_absent(environ: Mapping[str, str], absent: int, num_gpus: int) -> str:
    """Say why TensorFlow has no GPU of this number, and what to do."""
    cure = "Train on the CPU with --devices cpu:1."
    if num_gpus:
        visible = environ.get("CUDA_VISIBLE_DEVICES")
        numbers = f"the numbers 0 to {num_gpus - 1}" if num_gpus > 1 else "the number 0"
        selected = f" CUDA_VISIBLE_DEVICES={visible[:80]} selects and renumbers GPUs." if visible else ""
        return f"GPU {absent} is not there. TensorFlow sees {num_gpus} here, with {numbers}.{selected}"
    if nvidia.hides_all_gpus(environ):
        return f"CUDA_VISIBLE_DEVICES={environ['CUDA_VISIBLE_DEVICES'][:80]} hides all GPUs. Unset it. {cure}"
    present = nvidia.gpus_present()
    if present:
        return f"this machine has {grouped(present)}, but TensorFlow can use no GPU: {unusable_reason(environ)} {cure}"
    return f"there is no GPU here: neither nvidia-smi nor /dev/nvidia* shows one to this process. {cure}"


def _too_late(wanted: str | None, error: RuntimeError) -> ConfigurationError:
    return ConfigurationError(
        f"--devices {wanted or '(the default)'} came too late: TensorFlow uses other devices in this process already "
        f"({error}). Start a fresh process, and make no optimizer or metric before distrain.fit or "
        "distrain.horovod.init is called: give distrain.fit a function, optimizer=lambda: keras.optimizers.Adam(1e-3), "
        "or compile the model in build_model."
    )
