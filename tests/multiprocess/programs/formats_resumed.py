"""Trains on one data set in several formats, in windows of 16 examples: the first 10 steps, or the rest of each run.

    mpirun -n 2 python formats_resumed.py FOLDER first

The first part ends within the second epoch, and within a window. The part "rest" writes digests of weights, by rank.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import keras
import numpy as np

import distrain
from distrain import formats
from distrain.data import shuffle

NUM_EXAMPLES = 53
SETTINGS = {"loss": "mse", "epochs": 2, "global_batch_size": 8, "learning_rate": 0.05, "verbose": 0, "seed": 4}
SETTINGS |= {"jit_compile": False, "strategy": "mpi"}


def main() -> None:
    folder, part = Path(sys.argv[1]), sys.argv[2]
    shuffle.SHUFFLE_WINDOW = 16
    sources = {
        "Parquet": formats.parquet(folder / "rows.parquet"),
        "HDF5": formats.hdf5(folder / "rows.h5"),
        "Zarr": formats.zarr(folder / "rows.zarr"),
        "tar shards": formats.webdataset(folder / "rows.tar", features="pixels.npy", label="label.npy"),
    }
    if part == "first":
        for form, source in sources.items():
            distrain.fit(build, source, **SETTINGS, run=folder / form, max_steps=10)
        return
    arrays = tuple(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("pixels", "label"))
    found = {"arrays": digest(arrays)}
    found |= {form: digest(source, run=folder / form) for form, source in sources.items()}
    rank = os.environ["OMPI_COMM_WORLD_RANK"]
    (folder / f"found.{rank}.json").write_text(json.dumps(found), encoding="utf-8")


def build() -> keras.Model:
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])


def digest(train: object, **settings: object) -> str:
    return distrain.fit(build, train, **SETTINGS, **settings).summary["weights_sha256"]


if __name__ == "__main__":
    main()
