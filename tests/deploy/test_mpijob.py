"""The MPIJob of k8s/overlays/mpijob without Kubernetes: sshd in the workers, mpirun in the launcher."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mpi_operator
import numpy as np
import pytest
import yaml
from launching import environment, needs_mpi
from pods import Network, Pod, missing, pod_network
from safetensors.numpy import load_file

REPOSITORY = Path(__file__).resolve().parents[2]
BOUND = 60  # seconds within which a job ends when a worker is lost
SETTINGS = ["--epochs", "3", "--patience", "0", "--global-batch-size", "64"]
ENDLESS = ["--epochs", "100000", "--patience", "0", "--run=/runs/endless"]
TOOLS = {"kubectl": "kubectl", "tini": "tini", "sshd": "openssh-server", "ssh": "openssh-client"}


def reason_to_skip() -> str:
    for tool, package in TOOLS.items():
        if shutil.which(tool, path="/usr/bin:/usr/sbin:/usr/local/bin") is None:
            return f"{tool} is not installed: apt-get install {package}"
    return missing()


pytestmark = [pytest.mark.skipif(bool(reason_to_skip()), reason=reason_to_skip()), needs_mpi]


@dataclass
class Cluster:
    """Pods of one MPIJob.

    Attributes:
        job: what the operator knows.
        network: where its pods are.
        workers: by index.
        runs: the volume of the runs.
        alone: the run of one process.
    """

    job: mpi_operator.Job
    network: Network
    workers: dict[int, Pod]
    runs: Path
    alone: Path

    def launch(self, *arguments: str, **env: str) -> Pod:
        return self.job.start_launcher(self.network, arguments, env)

    def renew_worker(self, index: int) -> None:
        """What the operator does when a worker's pod is gone: another of its name, at another address."""
        self.workers.pop(index).remove()
        self.workers[index] = self.job.start_worker(self.network, index)

    def is_quiet(self) -> bool:
        """Whether the workers run nothing but sshd."""
        own = ("tini", "python -m distrain.launchers.mpi_pod", "sshd: /usr/sbin/sshd -D -e [listener]")
        commands = [line for pod in self.workers.values() for line in pod.processes().values()]
        return all(any(name in line for name in own) for line in commands)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    place = tmp_path_factory.mktemp("mpijob")
    for command in (
        ["synth", "--out", "text", "--rows", "331", "--seed", "3"],
        ["prepare", "--train", "text/train.csv", "--test", "text/test.csv", "--out", "data/prepared", "--top-k", "500"],
        ["train", "--data", "data/prepared", "--run", "alone", "--strategy", "single", *SETTINGS],
    ):
        words = [sys.executable, "-m", "distrain", *command]
        done = subprocess.run(words, cwd=place, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    for volume in ("data", "runs"):
        (place / volume).mkdir(exist_ok=True)
        mpi_operator.own_by_pods(place / volume)
    claims = {"distrain-data": place / "data", "distrain-runs": place / "runs"}
    job = mpi_operator.Job(rendered(), place, claims)
    (place / "pods").mkdir()
    with pod_network(place / "pods") as network:
        workers = {index: job.start_worker(network, index) for index in range(job.num_workers)}
        yield Cluster(job, network, workers, place / "runs", place / "alone")


def rendered() -> dict:
    overlay = REPOSITORY / "k8s" / "overlays" / "mpijob"
    text = subprocess.run(["kubectl", "kustomize", overlay], capture_output=True, check=True).stdout
    (job,) = (item for item in yaml.safe_load_all(text) if item["kind"] == "MPIJob")
    return job


def wait_until(condition: Callable[[], bool], seconds: float, what: Callable[[], str] = str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.05)


def events(run: Path) -> list[dict]:
    log = run / "metrics.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def steps_resumed_at(run: Path) -> list[int]:
    return [event["step"] for event in events(run) if event["event"] == "resume"]


def epochs_begun(run: Path) -> int:
    return max((event.get("epoch", 0) for event in events(run)), default=0)


def await_training(cluster: Cluster, launcher: Pod, *, beyond: int = 0) -> None:
    run = cluster.runs / "endless"
    wait_until(lambda: epochs_begun(run) > beyond + 1 or launcher.process.poll() is not None, 120, launcher.err)
    assert launcher.process.poll() is None, launcher.err()


def last_word(launcher: Pod) -> str:
    return launcher.err().splitlines()[-1]


def weights(run: Path) -> dict[str, np.ndarray]:
    arrays = load_file(max((run / "checkpoints").glob("step-*")) / "arrays.safetensors")
    return {name: array for name, array in arrays.items() if name.startswith("model/") and array.dtype.kind == "f"}


def test_the_pods_train_the_model_that_one_process_trains(cluster):
    launcher = cluster.launch(*SETTINGS)
    assert launcher.wait(120) == 0, launcher.err()
    run = cluster.runs / "distrain"  # where the manifest says
    summary = json.loads((run / "summary.json").read_text())
    assert summary["num_replicas"] == cluster.job.num_workers == 2
    expected, found = weights(cluster.alone), weights(run)
    assert expected.keys() == found.keys()
    largest = max(np.abs(array).max() for array in expected.values())
    assert max(np.abs(expected[name] - found[name]).max() for name in expected) <= 1e-5 * largest
    wait_until(cluster.is_quiet, BOUND)
    launcher.remove()


def test_a_drain_saves_and_a_lost_worker_ends_the_job(cluster):
    """One run: the launcher is asked to stop, then a worker, which is replaced; then a worker is killed."""
    run = cluster.runs / "endless"
    launcher = cluster.launch(*ENDLESS)
    await_training(cluster, launcher)
    probe = [word.replace("/runs/distrain", "/runs/endless") for word in cluster.job.liveness_probe()]
    alive = launcher.run(probe)
    assert alive.returncode == 0, alive.stderr
    launcher.signal(signal.SIGTERM)
    assert launcher.wait(BOUND) == 42, launcher.err()
    assert last_word(launcher).startswith("distrain: stopped:")
    wait_until(cluster.is_quiet, BOUND)
    launcher.remove()
    stopped_at = events(run)[-1]["step"]

    launcher = cluster.launch(*ENDLESS)
    await_training(cluster, launcher, beyond=epochs_begun(run))
    assert steps_resumed_at(run) == [stopped_at]
    cluster.workers[1].signal(signal.SIGTERM)
    assert cluster.workers[1].wait(BOUND) == 42, cluster.workers[1].err()
    assert launcher.wait(BOUND) == 42, launcher.err()
    assert "SIGTERM to rank 1" in last_word(launcher)
    launcher.remove()
    stopped_at = events(run)[-1]["step"]

    epochs = epochs_begun(run)
    launcher = cluster.launch(*ENDLESS)  # before the worker that replaces the drained one
    cluster.renew_worker(1)
    await_training(cluster, launcher, beyond=epochs)
    assert steps_resumed_at(run)[-1] == stopped_at
    cluster.workers[1].kill()
    killed_at = time.monotonic()
    assert launcher.wait(BOUND) == 5, launcher.err()
    wait_until(cluster.is_quiet, killed_at + BOUND - time.monotonic(), lambda: str(cluster.workers[0].processes()))
    assert "rank 1" in last_word(launcher)
    launcher.remove()
    cluster.renew_worker(1)


def test_a_worker_that_does_not_come_is_named_in_time(cluster):
    cluster.job.write_hostfile(3)
    try:
        launcher = cluster.launch(*SETTINGS, DISTRAIN_RENDEZVOUS_SECONDS="1")
        patient = cluster.launch(*SETTINGS)
        assert launcher.wait(30) == 5, launcher.err()
        assert f"no sshd on port 2222 of {cluster.job.worker_name(2)}." in last_word(launcher)
        patient.signal(signal.SIGTERM)
        assert patient.wait(10) == 42, patient.err()
        assert last_word(patient).startswith("distrain: stopped: SIGTERM came before training.")
    finally:
        cluster.job.write_hostfile(cluster.job.num_workers)
    for pod in (launcher, patient):
        pod.remove()


def test_a_stranger_in_the_place_of_a_worker_is_found_out(cluster):
    """The workers have the key of another job: the launcher neither trusts them nor logs in."""
    cluster.job.write_keys()
    launcher = cluster.launch(*SETTINGS)
    assert launcher.wait(60) == 2, launcher.err()
    assert f"{cluster.job.worker_name(0)} cannot be used" in launcher.err()
    assert "Host key verification failed" in launcher.err()
    assert cluster.is_quiet()
    launcher.remove()
