"""Random numbers while a model is built.

Decides: which generators a run seeds, and that the user's generators go on as if there had been no run. Never: draws.

    with seeded(config.seed):
        model = build_model()
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and Keras inside the context; afterwards Python and NumPy go on where they stood."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - Keras seeds this old generator of the user
    keras.utils.set_random_seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002 - gives it back to the user
