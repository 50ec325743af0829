"""How the replicas of a run meet: `choose` returns one of the distributions, all with the same small interface.

Decides: which distribution and which devices. Never: trains.

    distribution = choose("mirrored", devices="cpu:2", world=find_world(os.environ))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distrain.errors import ConfigurationError
from distrain.world import World

if TYPE_CHECKING:
    from distrain.distribution.base import Distribution


def choose(strategy: str, *, devices: str | None = None, world: World) -> Distribution:
    """The distribution to train under.

    Args:
        strategy: "single", "mirrored", or "auto": mirrored with several devices, else single.
        devices: "cpu:N", "gpu:0,1", or None for all GPUs, else the CPU. Takes effect before TensorFlow first uses a
            device in this process.
        world: the processes of this run.

    Raises:
        ConfigurationError: the strategy or the devices cannot be had here.
    """
    if strategy in ("horovod", "mpi") or world.size > 1:
        raise ConfigurationError(
            f"This is process {world.rank} of {world.size} with --strategy {strategy}, but this version trains in one "
            "process. Start 'distrain train' directly; it uses all GPUs of the machine."
        )
    names = _devices(devices)
    if strategy == "auto":
        strategy = "mirrored" if len(names) > 1 else "single"
    if strategy == "mirrored":
        from distrain.distribution.mirrored import Mirrored

        return Mirrored(names)
    if len(names) > 1:
        raise ConfigurationError(
            f"--strategy single uses one device, but there are {len(names)} ({', '.join(names)}). "
            "Choose one with --devices gpu:0, or use --strategy mirrored."
        )
    from distrain.distribution.single import SingleDevice

    return SingleDevice()


def _devices(wanted: str | None) -> list[str]:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    kind, _, numbers = (wanted or ("gpu" if gpus else "cpu:1")).partition(":")
    try:
        if kind == "cpu":
            cpu = tf.config.list_physical_devices("CPU")[0]
            tf.config.set_visible_devices([], "GPU")
            if int(numbers) > 1:
                logical = [tf.config.LogicalDeviceConfiguration() for _ in range(int(numbers))]
                tf.config.set_logical_device_configuration(cpu, logical)
            return [f"CPU:{number}" for number in range(int(numbers))]
        chosen = [int(number) for number in numbers.split(",")] if numbers else list(range(len(gpus)))
        if len(set(chosen)) != len(chosen) or any(number >= len(gpus) for number in chosen):
            raise ConfigurationError(
                f"--devices {wanted} names a GPU twice or one that is not there: TensorFlow sees {len(gpus)} GPUs "
                "here. Name other devices, or try --devices cpu:2."
            )
        tf.config.set_visible_devices([gpus[number] for number in chosen], "GPU")
        return [f"GPU:{number}" for number in range(len(chosen))]
    except RuntimeError as error:
        raise ConfigurationError(
            f"--devices {wanted} came too late: TensorFlow uses other devices in this process already ({error}). "
            "Start a fresh process, and make no optimizer or metric before distrain.fit is called: compile the model "
            "in build_model instead."
        ) from None
