"""Trains by data workers: `fit_by_workers.py RUN WORKERS EPOCHS`, or without a guard if WORKERS is "unguarded".

As soon as RUN-stall exists, `map` does not return for a minute, and RUN-stall-PID tells so.
"""

import os
import sys
import time
from pathlib import Path

from worker_sources import FEATURES, Numbered

import distrain


def build():
    import keras  # here, so that no worker loads TensorFlow

    return keras.Sequential([keras.Input((FEATURES,)), keras.layers.Rescaling(1e-3), keras.layers.Dense(1)])


def noisy(example, rng):
    stall = Path(f"{sys.argv[1]}-stall")
    if stall.exists():
        stall.with_name(f"{stall.name}-{os.getpid()}").touch()
        time.sleep(60)
    return example[0] + rng.normal(size=FEATURES).astype("float32"), example[1] / 1000


def plain(example):
    return example[0], example[1] / 1000


def train(run, workers, epochs):
    data = {"train": Numbered(1000, seconds=0.0002), "validation": Numbered(100), "map": noisy, "validation_map": plain}
    settings = {"loss": "mse", "global_batch_size": 32, "verbose": 0, "learning_rate": 0.01, "jit_compile": False}
    found = distrain.fit(build, **data, run=run, data_workers=workers, epochs=epochs, **settings)
    print(found.summary["weights_sha256"], found.summary["validation_loss"])


if sys.argv[2] == "unguarded":
    train(sys.argv[1], 2, 1)
elif __name__ == "__main__":
    for number in sys.argv[2].split(","):
        train(f"{sys.argv[1]}-{number}", int(number), int(sys.argv[3]))
