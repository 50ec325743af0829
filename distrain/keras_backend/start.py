"""A quiet start of Keras on TensorFlow.

Decides: environment variables of the first import, the folder for temporary files, and garbage collection around the
import. Never: overrides a user's settings.

    require_tensorflow()                         # before the first import of Keras
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distrain.errors import ConfigurationError
from distrain.extras import install_command


def require_tensorflow() -> None:
    """Import Keras with its TensorFlow backend, and silence TensorFlow's messages about its start.

    Raises:
        ConfigurationError: the user chose another backend, TensorFlow is not installed, or no folder for temporary
            files can be written.
    """
    require_temporary_folder()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend == "tensorflow":
        try:
            with _kept_modules():
                import keras
        except ImportError as error:
            raise ConfigurationError(
                f"TensorFlow cannot be imported ({error}). Install one of its builds: {install_command('cpu')}, "
                "or 'distrain[gpu]' for NVIDIA GPUs."
            ) from None
        backend = keras.backend.backend()  # the program may have imported Keras before, with another backend
    if backend != "tensorflow":
        raise ConfigurationError(
            f"Keras is set to run on {backend!r}; distrain needs TensorFlow. Set KERAS_BACKEND=tensorflow."
        )


def require_temporary_folder() -> Path:
    """Return the folder for temporary files, which the import of Keras and the start of ranks need.

    Raises:
        ConfigurationError: no such folder can be written.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise ConfigurationError(f"{error.strerror}. Set TMPDIR to a folder that can be written.") from None


@contextmanager
def _kept_modules() -> Iterator[None]:
    """Import without garbage collection, and exempt the imported objects from later collections.

    TensorFlow makes 600,000 objects, none of them garbage. The collector would walk the objects during the import and
    at the end of the process, for one second in all.
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
