"""Fixtures of several tests: prepared data, a run in one process, jobs of stand-in ranks, and clusters without pods."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import manifests
import pytest
from commands import run_python
from kubernetes_api import Cluster, serving
from rich.console import Console
from stand_in_ranks import Job, make_tree

from distrain.config import PrepareConfig
from distrain.prepare.pipeline import prepare
from distrain.text.synthetic.corpus import write_synthetic

NUM_ROWS = 331
os.environ["GOGC"] = "off"  # a third of the time of kubectl, which tests start some hundred times


@dataclass(frozen=True)
class Reference:
    """A run in one process.

    Attributes:
        data: Prepared n-grams of `NUM_ROWS` training rows, 4 classes.
        run: Run directory.
        epochs: Epochs of the run.
        steps_per_epoch: Steps of an epoch.
    """

    data: Path
    run: Path
    epochs: int
    steps_per_epoch: int = 6

    @property
    def settings(self) -> list[str]:
        """Arguments of `distrain train`."""
        return ["--epochs", str(self.epochs), "--patience", "0", "--global-batch-size", "64", "--no-jit"]


@pytest.fixture(scope="session")
def prepared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared n-grams of `NUM_ROWS` training rows, 4 classes."""
    folder = tmp_path_factory.mktemp("text")
    write_synthetic(folder, rows=NUM_ROWS, seed=3)
    files = {"train": folder / "train.csv", "test": folder / "test.csv", "out": folder / "prepared"}
    prepare(PrepareConfig(**files, vectorizer="ngram", top_k=500), console=Console(quiet=True))
    return folder / "prepared"


@pytest.fixture(scope="session")
def reference(prepared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """A run in one process, for short runs that must reproduce it."""
    return _train(Reference(prepared_data, tmp_path_factory.mktemp("reference") / "run", epochs=3))


@pytest.fixture(scope="session")
def long_reference(prepared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """A run in one process, for runs that are long enough to be interrupted."""
    return _train(Reference(prepared_data, tmp_path_factory.mktemp("reference") / "run", epochs=40))


def _train(reference: Reference) -> Reference:
    words = ["--data", str(reference.data), "--run", str(reference.run), "--strategy", "single", "--devices", "cpu:1"]
    done = run_python("-m", "distrain", "train", *words, *reference.settings)
    assert done.returncode == 0, done.stderr
    return reference


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout whose `distrain` is a stand-in for a rank."""
    return make_tree(tmp_path)


@pytest.fixture
def start(tree: Path) -> Iterator[Callable[..., Job]]:
    """`start(*arguments, CODE="3")` starts single_node.sh; the end of the test kills what still runs."""
    jobs: list[Job] = []

    def begin(*arguments: str, tree: Path = tree, options: dict[str, Any] | None = None, **environment: str) -> Job:
        jobs.append(Job(tree, *arguments, environment=environment, **(options or {})))
        return jobs[-1]

    yield begin
    for job in jobs:
        for pid in job.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        job.process.communicate()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with serving() as one:
        yield one


@pytest.fixture
def cluster_with_operators() -> Iterator[Cluster]:
    with serving(with_operators=True) as one:
        yield one


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`script(cluster, *arguments)` runs the script against a cluster."""

    def run(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig(tmp_path)), "HOME": str(tmp_path)}
        done = manifests.run(*arguments, env=environment)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run
