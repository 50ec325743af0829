"""Whole runs in fresh processes: logical devices must be set before TensorFlow starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import load_file

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": f"{HERE.parents[1]}{os.pathsep}{HERE}"}
SIZES = {"embedding": 16, "filters": 16}  # of the sequence model: small, to be quick

Completed = subprocess.CompletedProcess[str]


class Difference(NamedTuple):
    """How far two runs are apart."""

    weights: float  # largest difference of a weight, relative to the largest weight
    validation_loss: float


def _run(*command: object, cwd: Path, stdin: str = "") -> Completed:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        input=stdin,
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="session")
def distrain(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Completed]:
    """`distrain(*arguments)` runs the command in a process of its own, in the folder of these tests."""

    def run(*arguments: object, stdin: str = "") -> Completed:
        return _run("-m", "distrain", *arguments, cwd=HERE, stdin=stdin)

    return run


@pytest.fixture(scope="session")
def program() -> Callable[..., str]:
    """`program(name, *arguments)` runs programs/NAME.py, which must succeed, and returns what it printed."""

    def run(name: str, *arguments: object, stdin: str = "") -> str:
        done = _run(HERE / "programs" / f"{name}.py", *arguments, cwd=HERE, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def many_runs(program: Callable[..., str]) -> Callable[..., None]:
    """`many_runs(runs...)`: each list of runs in a process of its own, see programs/many_runs.py; two at a time."""

    def run(*runs: list[dict[str, Any]]) -> None:
        with ThreadPoolExecutor(2) as processes:
            list(processes.map(lambda settings: program("many_runs", stdin=json.dumps(settings, default=str)), runs))

    return run


@pytest.fixture(scope="session")
def text(distrain: Callable[..., Completed], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Prepared text by vectorizer, "ngram" and "sequence": 331 training rows of 4 classes."""
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
    """`last_weights(run)`: the model's arrays in the run's newest checkpoint, random state left out."""

    def read(run: Path) -> dict[str, np.ndarray]:
        newest = max((run / "checkpoints").glob("step-*"))
        arrays = load_file(newest / "arrays.safetensors")
        return {k: v for k, v in arrays.items() if k.startswith("model/") and v.dtype.kind == "f"}

    return read


@pytest.fixture(scope="session")
def difference(last_weights: Callable[[Path], dict[str, np.ndarray]]) -> Callable[[Path, Path], Difference]:
    """`difference(run, other_run)` of the weights after the last step and of the best epoch's validation loss."""

    def compare(run: Path, other: Path) -> Difference:
        one, two = last_weights(run), last_weights(other)
        assert one.keys() == two.keys()
        largest = max(np.abs(array).max() for array in one.values())
        apart = max(np.abs(one[name] - two[name]).max() for name in one)
        losses = [json.loads((path / "summary.json").read_text())["validation_loss"] or 0.0 for path in (run, other)]
        return Difference(float(apart / largest), abs(losses[0] - losses[1]))

    return compare
