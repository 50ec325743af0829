"""Keras on TensorFlow, and TensorFlow quiet.

Decides: the environment variables that Keras and TensorFlow read when they are first imported. Never: overrides what
the user has set.

    require_tensorflow()       # before the first import of Keras
"""

from __future__ import annotations

import os

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
