"""distrain: exact distributed training for Keras on data larger than memory.

    >>> import distrain                     # loads no TensorFlow
    >>> distrain.BatchGenerator.__name__
    'BatchGenerator'

Python imports the module of a public name at the first use of the name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from distrain.version import __version__ as __version__

if TYPE_CHECKING:
    from distrain.cluster.world import is_chief
    from distrain.config import PrepareConfig, TrainConfig
    from distrain.data.batch_generator import BatchGenerator, validation_steps
    from distrain.data.plan import EpochPlan, steps_per_epoch
    from distrain.data.shuffle import epoch_order
    from distrain.training.fit import fit

_MODULES = {
    "BatchGenerator": "distrain.data.batch_generator",
    "EpochPlan": "distrain.data.plan",
    "PrepareConfig": "distrain.config",
    "TrainConfig": "distrain.config",
    "epoch_order": "distrain.data.shuffle",
    "fit": "distrain.training.fit",
    "is_chief": "distrain.cluster.world",
    "steps_per_epoch": "distrain.data.plan",
    "validation_steps": "distrain.data.batch_generator",
}

__all__ = [
    "BatchGenerator",
    "EpochPlan",
    "PrepareConfig",
    "TrainConfig",
    "epoch_order",
    "fit",
    "is_chief",
    "steps_per_epoch",
    "validation_steps",
]


def __getattr__(name: str) -> Any:
    if name == "formats":  # a room, whose functions users call
        return import_module("distrain.formats")
    if name not in _MODULES:
        raise AttributeError(f"module 'distrain' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
