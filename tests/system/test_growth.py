"""What an epoch leaves behind in a long run: no Python object, no open file and no thread.

benchmarks/long_run.py measures 1,000 epochs in processes of their own; this test sees what lasts in one of 90.
"""

from __future__ import annotations

import gc
from collections import Counter
from concurrent.futures.thread import _WorkItem
from pathlib import Path

import keras
import numpy as np
import pytest
from waiting import wait_until

import distrain

# Keras reads variables by a way that NumPy will drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WARM, LAST = 30, 90  # epochs: functions are traced, and all checkpoints that stay are there
EPOCHS_OF_A_CENSUS = 5  # the fewest objects of a type count
MAX_LASTING = 30  # objects that hold others; a leak of one for each of the 60 epochs would be more
CACHES = {"ReferenceType", "builtin_function_or_method"}  # what abstract classes remember of classes that they met


class Census(keras.callbacks.Callback):
    """Counts what lives at the ends of some epochs up to two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[int, Counter[str]] = {}
        self.files: dict[int, int] = {}
        self.threads: dict[int, int] = {}

    def on_epoch_end(self, epoch, logs=None):
        for last in (WARM, LAST):
            if not last - EPOCHS_OF_A_CENSUS <= epoch < last:
                continue
            wait_until(_no_checkpoint_is_being_written)  # by a thread of low priority
            gc.collect()
            living = Counter(type(value).__name__ for value in gc.get_objects())
            self.objects[last] = self.objects.get(last, living) & living  # the smaller of two counts
            self.files[last] = _entries("/proc/self/fd")
            self.threads[last] = _entries("/proc/self/task")


def _no_checkpoint_is_being_written() -> bool:
    return not any(isinstance(value, _WorkItem) for value in gc.get_objects())


def _entries(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())


def build_model():
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(1, activation="sigmoid")])


def test_an_epoch_leaves_nothing_behind(tmp_path):
    features = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    labels = (features[:, 0] > 0).astype("int32")
    census = Census()
    gc.collect()
    gc.freeze()  # what earlier tests left does not count, and takes seconds to count
    distrain.fit(
        build_model,
        train=(features, labels),
        validation=(features, labels),
        loss="binary_crossentropy",
        metrics=["accuracy"],
        epochs=LAST,
        global_batch_size=16,
        callbacks=[census],
        run=tmp_path / "run",
        verbose=0,
    )
    lasting = census.objects[LAST] - census.objects[WARM]
    lasting = Counter({name: count for name, count in lasting.items() if name not in CACHES})
    assert lasting.total() <= MAX_LASTING, lasting.most_common(10)
    for census_of in (census.files, census.threads):  # a checkpoint may be open, and TensorFlow may start a thread late
        assert census_of[LAST] <= census_of[WARM] + 3, census_of
