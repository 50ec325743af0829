"""Trains random models by plain Keras or by distrain, as a program of one rank or many, and writes what each left.

    python oracle_runs.py FOLDER keras float64 0:20
    python oracle_runs.py FOLDER mirrored-2 float64 0:20           # two logical devices
    mpirun -n 3 python oracle_runs.py FOLDER mpi-3 float64 0:20

    read(FOLDER, "mpi-3", seed)            # a `Trained`
    differences(FOLDER, "mpi-3", seeds)    # {seed: Apart or Refused}

`WAY` is keras, single, shares-N (N shares on one device, one after the other), mirrored-N, mpi-N or horovod-N.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from keras_oracle import Trained

PROGRAM = Path(__file__)


def settings_of(way: str) -> dict[str, Any]:
    """Return distrain's settings of a way."""
    strategy, _, replicas = way.partition("-")
    if strategy == "shares":
        return {"strategy": "single", "accumulation_steps": int(replicas)}
    if strategy == "mirrored":
        return {"strategy": strategy, "devices": f"cpu:{replicas}"}
    return {"strategy": strategy}


def write(trained: Trained, words: str, path: Path) -> None:
    """Write what a training left."""
    arrays = {f"{epoch}/{n}": w for epoch, weights in enumerate(trained.weights) for n, w in enumerate(weights)}
    logs = [{name: np.asarray(value).tolist() for name, value in epoch.items()} for epoch in trained.logs]
    np.savez(path, **arrays, said=np.array(json.dumps([words, trained.refusal, logs])))


def read(folder: Path, way: str, seed: int) -> tuple[str, Trained]:
    """Return the words of a case, and what its training left."""
    from keras_oracle import Trained

    with np.load(folder / f"{way}.{seed}.npz") as arrays:
        words, refusal, logs = json.loads(str(arrays["said"]))
        epochs: dict[int, list[np.ndarray]] = {}
        for name in arrays.files:
            if name != "said":
                epochs.setdefault(int(name.partition("/")[0]), []).append(arrays[name])
    return words, Trained([epochs[epoch] for epoch in sorted(epochs)], logs, refusal)


def main(folder: Path, way: str, floatx: str, seeds: range) -> None:
    """Train the models of the seeds one way."""
    import keras
    import tensorflow as tf

    strategy, _, replicas = way.partition("-")
    if strategy == "mirrored":  # before the first optimizer, which initializes the devices
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(replicas))
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(floatx)

    from keras_oracle import Trained, by_distrain, by_keras
    from random_models import random_case

    writes = strategy in ("keras", "single", "shares", "mirrored") or _rank() == 0
    for seed in seeds:
        case = random_case(seed)
        try:
            trained = by_keras(case) if way == "keras" else by_distrain(case, **settings_of(way))
        except Exception as error:  # one model must not end the campaign
            if strategy in ("mpi", "horovod"):
                raise
            trained = Trained([], [], f"{type(error).__name__}: {error}")
        if writes:
            write(trained, case.words, folder / f"{way}.{seed}.npz")


def _rank() -> int:
    from distrain.cluster.world import find_world

    return find_world(os.environ).rank


if __name__ == "__main__":
    first, _, stop = sys.argv[4].partition(":")
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], range(int(first), int(stop)))
