"""The MPIJob of k8s/overlays/mpijob without Kubernetes: sshd in the workers, mpirun in the launcher."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mpi_operator
import pytest
import yaml
from launching import needs_mpi
from pods import Network, Pod, missing, pod_network
from run_files import distance, events, summary
from waiting import BOUND, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
# `--resume never` forbids only what another job has written: all launchers here are of one Job.
ENDLESS = ["--epochs", "100000", "--patience", "0", "--no-jit", "--run=/runs/endless", "--resume=never"]
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
        job: The job as the operator knows it.
        network: Network of its pods.
        workers: Pods by worker index.
        runs: Volume of the runs.
    """

    job: mpi_operator.Job
    network: Network
    workers: dict[int, Pod]
    runs: Path

    def launch(self, *arguments: str, **env: str) -> Pod:
        return self.job.start_launcher(self.network, arguments, env)

    def renew_worker(self, index: int) -> None:
        """Replace a worker as the operator does, with a new pod of the same name at another address."""
        self.workers.pop(index).remove()
        self.workers[index] = self.job.start_worker(self.network, index)

    def is_quiet(self) -> bool:
        """Return whether the workers run only sshd."""
        own = ("tini", "python -m distrain.launchers.mpi_pod", "sshd: /usr/sbin/sshd -D -e [listener]")
        commands = [line for pod in self.workers.values() for line in pod.processes().values()]
        return all(any(name in line for name in own) for line in commands)


@pytest.fixture(scope="module")
def cluster(prepared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("mpijob")
    for volume in ("data", "runs"):
        (folder / volume).mkdir()
    shutil.copytree(prepared_data, folder / "data" / "prepared")
    for volume in ("data", "runs"):
        mpi_operator.own_by_pods(folder / volume)
    claims = {"distrain-data": folder / "data", "distrain-runs": folder / "runs"}
    job = mpi_operator.Job(rendered(), folder, claims)
    (folder / "pods").mkdir()
    with pod_network(folder / "pods") as network:
        workers = {index: job.start_worker(network, index) for index in range(job.num_workers)}
        yield Cluster(job, network, workers, folder / "runs")


def rendered() -> dict:
    overlay = REPOSITORY / "k8s" / "overlays" / "mpijob"
    text = subprocess.run(["kubectl", "kustomize", overlay], capture_output=True, check=True).stdout
    (job,) = (item for item in yaml.safe_load_all(text) if item["kind"] == "MPIJob")
    return job


def steps_resumed_at(run: Path) -> list[int]:
    return [event["step"] for event in events(run) if event["event"] == "resume"]


def epochs_begun(run: Path) -> int:
    return max((event.get("epoch", 0) for event in events(run)), default=0)


def await_training(cluster: Cluster, launcher: Pod, *, beyond: int = 0) -> None:
    run = cluster.runs / "endless"
    wait_until(lambda: epochs_begun(run) > beyond + 1 or launcher.process.poll() is not None, 120, launcher.err)
    assert launcher.process.poll() is None, launcher.err()


def final_message(launcher: Pod) -> str:
    return launcher.err().splitlines()[-1]


def test_the_pods_train_the_model_that_one_process_trains(cluster, reference):
    launcher = cluster.launch(*reference.settings)
    assert launcher.wait(120) == 0, launcher.err()
    run = cluster.runs / "distrain"  # where the manifest says
    assert summary(run)["num_replicas"] == cluster.job.num_workers == 2
    assert distance(run, reference.run) <= 1e-5
    wait_until(cluster.is_quiet)
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
    assert final_message(launcher).startswith("distrain: stopped:")
    wait_until(cluster.is_quiet)
    launcher.remove()
    stopped_at = events(run)[-1]["step"]

    launcher = cluster.launch(*ENDLESS)
    await_training(cluster, launcher, beyond=epochs_begun(run))
    assert steps_resumed_at(run) == [stopped_at]
    cluster.workers[1].signal(signal.SIGTERM)
    assert cluster.workers[1].wait(BOUND) == 42, cluster.workers[1].err()
    assert launcher.wait(BOUND) == 42, launcher.err()
    assert "SIGTERM to rank 1" in final_message(launcher)
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
    assert "rank 1" in final_message(launcher)
    launcher.remove()
    cluster.renew_worker(1)


def test_a_worker_that_does_not_come_is_named_in_time(cluster):
    cluster.job.write_hostfile(3)
    try:
        launcher = cluster.launch(DISTRAIN_RENDEZVOUS_SECONDS="1")
        patient = cluster.launch()
        assert launcher.wait(30) == 5, launcher.err()
        assert f"no sshd on port 2222 of {cluster.job.worker_name(2)}." in final_message(launcher)
        patient.signal(signal.SIGTERM)
        assert patient.wait(10) == 42, patient.err()
        assert final_message(patient).startswith("distrain: stopped: SIGTERM came before training.")
    finally:
        cluster.job.write_hostfile(cluster.job.num_workers)
    for pod in (launcher, patient):
        pod.remove()


def test_a_stranger_in_the_place_of_a_worker_is_found_out(cluster):
    """The workers have the key of another job: the launcher neither trusts them nor logs in."""
    cluster.job.write_keys()
    launcher = cluster.launch()
    assert launcher.wait(60) == 2, launcher.err()
    assert f"{cluster.job.worker_name(0)} cannot be used" in launcher.err()
    assert "Host key verification failed" in launcher.err()
    assert cluster.is_quiet()
    launcher.remove()
