"""Whole runs in fresh processes, because logical devices must be set before TensorFlow starts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from commands import SYSTEM, run_python
from object_store import ObjectStore, object_store
from safetensors.numpy import load_file

from distrain.remote import storage

Completed = subprocess.CompletedProcess[str]


class Difference(NamedTuple):
    """The difference between two runs.

    Attributes:
        weights: largest difference of a weight, relative to the largest weight.
        validation_loss: absolute difference of the validation loss.
    """

    weights: float
    validation_loss: float


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    """An S3 server, and no connection to an earlier one."""
    storage._FILESYSTEMS.clear()
    with object_store() as started:
        yield started
    storage._FILESYSTEMS.clear()


@pytest.fixture(scope="session")
def distrain() -> Callable[..., Completed]:
    """`distrain(*arguments)` runs the command in a process of its own."""
    return lambda *arguments, stdin="": run_python("-m", "distrain", *arguments, stdin=stdin)


@pytest.fixture(scope="session")
def program() -> Callable[..., str]:
    """`program(name, *arguments)` runs programs/NAME.py, which must succeed, and returns its standard output."""

    def run(name: str, *arguments: object, stdin: str = "") -> str:
        done = run_python(SYSTEM / "programs" / f"{name}.py", *arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def many_runs(program: Callable[..., str]) -> Callable[..., None]:
    """`many_runs(*lists)` trains each list of runs in a process of its own, two processes at a time."""

    def run(*runs: list[dict[str, Any]]) -> None:
        with ThreadPoolExecutor(2) as processes:
            list(processes.map(lambda settings: program("many_runs", stdin=json.dumps(settings, default=str)), runs))

    return run


@pytest.fixture(scope="session")
def text(distrain: Callable[..., Completed], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of prepared text by vectorizer, "ngram" and "sequence": 331 training rows of 4 classes."""
    folder = tmp_path_factory.mktemp("text")
    assert distrain("synth", "--out", folder, "--rows", 331, "--seed", 3).returncode == 0
    prepared = {}
    for vectorizer in ("ngram", "sequence"):
        prepared[vectorizer] = folder / vectorizer
        sizes = ("--vectorizer", vectorizer, "--top-k", 500, "--max-length", 30)
        inputs = ("--train", folder / "train.csv", "--test", folder / "test.csv", "--out", prepared[vectorizer])
        done = distrain("prepare", *inputs, *sizes)
        assert done.returncode == 0, done.stderr
    return prepared


@pytest.fixture(scope="session")
def last_weights() -> Callable[[Path], dict[str, np.ndarray]]:
    """`last_weights(run)` reads the model's weights from the run's newest checkpoint, without random state."""

    def read(run: Path) -> dict[str, np.ndarray]:
        newest = max((run / "checkpoints").glob("step-*"))
        arrays = load_file(newest / "arrays.safetensors")
        return {k: v for k, v in arrays.items() if k.startswith("model/") and v.dtype.kind == "f"}

    return read


@pytest.fixture(scope="session")
def difference(last_weights: Callable[[Path], dict[str, np.ndarray]]) -> Callable[[Path, Path], Difference]:
    """`difference(run, other)` compares the last weights and the best validation loss of two runs."""

    def compare(run: Path, other: Path) -> Difference:
        one, two = last_weights(run), last_weights(other)
        assert one.keys() == two.keys()
        largest = max(np.abs(array).max() for array in one.values())
        apart = max(np.abs(one[name] - two[name]).max() for name in one)
        losses = [json.loads((path / "summary.json").read_text())["validation_loss"] or 0.0 for path in (run, other)]
        return Difference(float(apart / largest), abs(losses[0] - losses[1]))

    return compare
