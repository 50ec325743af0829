"""The precision of the shipped models: `--mixed-precision` as a policy of Keras while a model is made.

Decides: which policy a precision means, and where it cannot be used. Never: scales a loss; Keras does in `compile`.

    with precision("bfloat16"):
        model = NgramMLP(20_000, 4)         # computes in bfloat16; its weights and its classifier stay float32
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

from distrain.errors import ConfigurationError

_LOG = logging.getLogger(__name__)


@contextmanager
def precision(name: str | None) -> Iterator[None]:
    """Give the layers that are made in this context a mixed policy; None changes nothing.

    Args:
        name: "float16", "bfloat16" or None.

    Raises:
        ConfigurationError: the precision needs a GPU.
    """
    if name is None:
        yield
        return
    if not tf.config.list_logical_devices("GPU"):
        if name == "float16":
            raise ConfigurationError(
                "--mixed-precision float16 needs a GPU: on a CPU a convolution takes a hundred times as long. Use "
                "bfloat16, or leave --mixed-precision out."
            )
        _LOG.warning("--mixed-precision bfloat16 saves no time on a CPU; it is meant for GPUs.")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(f"mixed_{name}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
