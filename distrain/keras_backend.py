"""Keras on TensorFlow, and TensorFlow quiet.

Decides: the environment variables that Keras and TensorFlow read when they are first imported, and what the garbage
collector makes of them. Never: overrides what the user has set.

    require_tensorflow()       # before the first import of Keras
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from distrain.errors import ConfigurationError


def require_tensorflow() -> None:
    """Import Keras with its TensorFlow backend, and without TensorFlow's notes on its own start.

    Raises:
        ConfigurationError: the user has chosen another backend, or TensorFlow is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend == "tensorflow":
        try:
            with _kept_modules():
                import keras
        except ImportError as error:
            raise ConfigurationError(
                f"TensorFlow cannot be imported ({error}). Install one of its builds: pip install 'distrain[cpu]', or "
                "'distrain[gpu]' for NVIDIA GPUs."
            ) from None
        backend = keras.backend.backend()  # of a Keras that was imported before
    if backend != "tensorflow":
        raise ConfigurationError(
            f"Keras is set to run on {backend!r}; distrain needs TensorFlow. Set KERAS_BACKEND=tensorflow."
        )


@contextmanager
def _kept_modules() -> Iterator[None]:
    """Import without garbage collection, and leave what was imported out of later ones.

    The collector would walk TensorFlow's 600,000 objects, none of them garbage, again and again while they are made,
    and once more when the process ends: a second in all.
    """
    if "keras" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
