"""Distributed training for a user's own `model.fit` script, over Horovod.

Decides: rank, device and cores of this process, and the names that a script uses. Never: trains; `model.fit` does.

    import distrain.horovod as hvd

    world = hvd.init()                                              # before TensorFlow uses a device
    batches = hvd.RankBatches(x, y, batch_size=64, shuffle=True)    # this rank's stride of batches of 64
    model.compile(hvd.DistributedOptimizer("adam"), loss=...)
    callbacks = [hvd.BroadcastCallback(), hvd.MetricAverageCallback(batches), ...]
    held_out = hvd.RankBatches(xv, yv, batch_size=64, training=False)
    model.fit(batches, shuffle=False, validation_data=held_out, callbacks=callbacks, verbose=2 * (world.rank == 0))
    if world.rank == 0:
        model.save("model.keras")                                   # a plain model: it loads without distrain

Started by `mpirun -n 4 --bind-to none python script.py` or `horovodrun --gloo -np 4 python script.py`; as one process
the same script trains alone. Horovod's own `DistributedOptimizer` and callbacks synchronize nothing on Keras 3.

All ranks end with bitwise the same weights. Up to float rounding, one process on the joint batches ends with the same
weights. This holds for a ragged last step, several inputs and outputs, weights, clipping and accumulation. It also
holds for several steps per execution, moving averages of weights and loss scaling. A `train_step` of your own works if
its loss is a mean over the examples of its batch. A script around `fit` has these limits:
- Keras' dropout draws other masks than one process would;
- batch normalization uses the rank's own batch, and its moving statistics differ by rank until the next broadcast;
- ranks average a loss that a layer adds: right for means over examples and weight regularizers, wrong for sums;
- a loss with masks weighs each rank's batch by its examples, where one process would count unmasked positions;
- a loss whose reduction is no mean over examples is refused.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from distrain.cluster.error_relay import run_on_all_ranks
from distrain.cluster.world import World, find_world
from distrain.errors import ConfigurationError

if TYPE_CHECKING:
    from distrain.horovod.batches import RankBatches
    from distrain.horovod.metrics import MetricAverageCallback
    from distrain.horovod.optimizer import BroadcastCallback, DistributedOptimizer

_HOMES = {
    "BroadcastCallback": "distrain.horovod.optimizer",
    "DistributedOptimizer": "distrain.horovod.optimizer",
    "MetricAverageCallback": "distrain.horovod.metrics",
    "RankBatches": "distrain.horovod.batches",
}

__all__ = ["BroadcastCallback", "DistributedOptimizer", "MetricAverageCallback", "RankBatches", "World", "init"]

_joined: list[World] = []  # what `init` returned; empty before


def init(devices: str | None = None) -> World:
    """Connect to the other ranks and fix the device and cores of this rank; a second call changes nothing.

    Args:
        devices: "cpu" for the CPU, "gpu:0,1" for GPUs that the local ranks divide among themselves; default: all GPUs,
            and the CPU if there is no GPU.

    Returns:
        `rank`, `size`, `local_rank` and `local_size` of this process; rank 0 of 1 if no launcher started the process.

    Raises:
        ConfigurationError: TensorFlow uses devices already, or cannot use the GPUs that are there. There are fewer GPUs
            than local ranks, or only some ranks have one. Horovod is not installed. The environment contradicts itself.
        RankError: this rank cannot connect to the others.
    """
    if not _joined:
        _joined.append(_join(devices))
    return _joined[0]


def _join(devices: str | None) -> World:
    world = find_world(os.environ)
    if world.size == 1:
        from distrain.distribution.devices import local_devices

        local_devices(os.environ, devices)
    else:
        from distrain.distribution.choose import set_idle_variables
        from distrain.distribution.device_agreement import agree_on_devices, own_device_or_error
        from distrain.distribution.devices import CPU

        own = own_device_or_error(os.environ, world, devices)  # before Horovod touches TensorFlow
        set_idle_variables(world, shares_memory=False)
        try:
            from distrain.distribution.collectives import horovod
        except ImportError as error:
            raise ConfigurationError(
                f"This is rank {world.rank} of {world.size}, but Horovod cannot be imported ({error}). Build it with "
                "distrain install-horovod."
            ) from None
        models = agree_on_devices(horovod.start(world), own)
        if CPU not in models:
            run_on_all_ranks(horovod.HorovodGroup(), horovod.check_gpu_support)
    return world


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'distrain.horovod' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
