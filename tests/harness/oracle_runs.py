"""Trains cases by plain Keras or by distrain, as a program of one rank or many, and writes what each left.

    python oracle_runs.py FOLDER keras float64 0:20                # the random models of these seeds
    python oracle_runs.py FOLDER single,mirrored-2 float64 0:20    # two ways; Mirrored has two logical devices
    mpirun -n 3 python oracle_runs.py FOLDER mpi-3 float64 0:20
    python oracle_runs.py FOLDER single float64 odd                # models at the edges of what Keras accepts
    python oracle_runs.py FOLDER single float64 families           # every loss, metric, optimizer and schedule

    words, trained = read(FOLDER, "mpi-3", "7")

A way is keras, single, shares-N, mirrored-N, mpi-N or horovod-N. In the way shares-N, one device computes the N shares
one after the other. Ways joined by commas share the program, so they share its start; ranks have one way.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distrain.cluster.world import find_world

if TYPE_CHECKING:
    from keras_oracle import Case, Trained

PROGRAM = Path(__file__)
CRASH = "crashed: "  # begins the sentence of an error that is no refusal


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


def read(folder: Path, way: str, name: str) -> tuple[str, Trained]:
    """Return the words of a case, and what its training left."""
    from keras_oracle import Trained

    with np.load(folder / f"{way}.{name}.npz") as arrays:
        words, refusal, logs = json.loads(str(arrays["said"]))
        epochs: dict[int, list[np.ndarray]] = {}
        for name in arrays.files:
            if name != "said":
                epochs.setdefault(int(name.partition("/")[0]), []).append(arrays[name])
    return words, Trained([epochs[epoch] for epoch in sorted(epochs)], logs, refusal)


def cases_of(source: str) -> dict[str, Callable[[], Case]]:
    """Return the cases of a source by name: "families", "odd", some as "odd=NAME;NAME", or seeds "FIRST:STOP"."""
    if source.startswith("odd"):
        from odd_cases import ODD_CASES

        return {name: ODD_CASES[name] for name in source[len("odd=") :].split(";")} if "=" in source else ODD_CASES
    if source == "families":
        from family_cases import FAMILY_CASES

        return FAMILY_CASES
    from random_models import random_case

    first, _, stop = source.partition(":")
    return {str(seed): partial(random_case, seed) for seed in range(int(first), int(stop))}


def main(folder: Path, ways: str, floatx: str, source: str) -> None:
    """Train the cases of a source each way."""
    import keras
    import tensorflow as tf

    # Before the first optimizer, which initializes the devices.
    num_devices = max([int(way.partition("-")[2]) for way in ways.split(",") if way.startswith("mirrored")], default=1)
    if num_devices > 1:
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_devices)
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(floatx)

    for name, make in cases_of(source).items():
        for way in ways.split(","):
            train(make(), way, folder / f"{way}.{name}.npz")


def train(case: Case, way: str, path: Path) -> None:
    """Train a case one way, and write what the training left."""
    from keras_oracle import Trained, by_distrain, by_keras

    has_ranks = way.startswith(("mpi", "horovod"))
    try:
        trained = by_keras(case) if way == "keras" else by_distrain(case, **settings_of(way))
    except Exception as error:
        if has_ranks:  # the other ranks would wait
            raise
        trained = Trained([], [], f"{CRASH}{type(error).__name__}: {error}")  # the other models go on
    if not has_ranks or find_world(os.environ).rank == 0:
        write(trained, case.words, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:5])
