"""The Indexed Job of `launch/k8s.sh render`, each index in a pod made of namespaces, as a cluster would start it.

After a pod is killed, the other pod takes half a minute to notice its silence. Other tests run meanwhile.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from indexed_job import STEP_SECONDS, IndexedJob, render_job
from launching import needs_horovod
from manifests import variables
from pod_root import USER
from pods import Pod, missing, pod_network
from run_files import distance, events, last_step, newest_checkpoint, summary
from waiting import BOUND, wait_until

LATE_SECONDS = 8.0  # pod 0 starts so late: longer than any single attempt of another pod to connect

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which renders the manifest, is not installed"),
    needs_horovod,
]


@pytest.fixture(scope="module")
def volumes(prepared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Claims: prepared data, and an empty folder for runs; both belong to the user of the pods, as by `fsGroup`."""
    folder = tmp_path_factory.mktemp("pods")
    (folder / "runs").mkdir()
    shutil.copytree(prepared_data, folder / "data" / "text")
    for path in (folder / "runs", *(folder / "data").rglob("*")):
        os.chown(path, USER, USER)
    return {"distrain-data": folder / "data", "distrain-runs": folder / "runs"}


@pytest.fixture(scope="module")
def indexed_job(volumes, tmp_path_factory) -> Iterator[Callable[..., IndexedJob]]:
    """`indexed_job(name, settings, num_pods=2, ranks_per_pod=1)`: a rendered job without pods."""
    with pod_network(tmp_path_factory.mktemp("network")) as network:

        def render(name: str, settings: list[str], **sizes: int) -> IndexedJob:
            return render_job(name, [*settings, "--devices", "cpu:1"], volumes, network, **{"num_pods": 2, **sizes})

        yield render


class Interrupted(NamedTuple):
    """A job of two pods: pod 1 was drained and replaced, then lost its rank, and pod 0 was killed in the end.

    Attributes:
        job: The job, with `--resume never`, which forbids only what another job has written.
        resumed_at: Step of the drain, and step from which the ranks went on after the loss of a rank.
        survivor: Pod 1, which has kept its place since it was replaced.
        lost: Pod 0, which was killed.
    """

    job: IndexedJob
    resumed_at: list[int]
    survivor: Pod
    lost: Pod


@pytest.fixture(scope="module")
def interrupted(indexed_job, long_reference) -> Interrupted:
    reference = long_reference
    job = indexed_job("hurt", [*reference.settings, "--resume", "never"])
    probe = job.spec["containers"][0]["livenessProbe"]["exec"]["command"]

    survivor, drained = (job.start(index) for index in (0, 1))
    job.await_step(2 * reference.steps_per_epoch, [survivor, drained])
    assert drained.run(probe).returncode == 0
    assert peers(drained) == {survivor.address}  # no connection uses a loopback device, which pods do not share
    drained.signal(signal.SIGTERM)
    assert job.end([drained], job.spec["terminationGracePeriodSeconds"]) == [42], drained.err()
    assert final_message(drained).startswith("distrain: stopped: pod 1: ")
    wait_until(lambda: "restart 1 of 10, from the last checkpoint" in survivor.err(), what=survivor.err)
    assert "Stopped by SIGTERM to rank 1" in survivor.err()
    assert is_waiting(survivor)
    assert "waits for its pods" in survivor.run(probe).stdout  # or Kubernetes would end the pod
    drained_at = last_step(job.run)
    assert saved_step(job) == drained_at

    pods = [survivor, job.start(1)]
    job.await_step(drained_at + 2 * reference.steps_per_epoch, pods)
    os.kill(max(pid for pid, line in pods[1].processes().items() if " distrain train " in line), signal.SIGKILL)
    wait_until(lambda: "restart 1 of 10" in pods[1].err(), what=pods[1].err)
    assert "rank 1 was killed by signal 9" in pods[1].err()
    lost_at = saved_step(job)
    job.await_step(lost_at + 2 * reference.steps_per_epoch, pods)
    wait_until(lambda: saved_step(job) > lost_at, what=survivor.err)  # a thread saves, later than the steps
    survivor.kill()
    return Interrupted(job, [drained_at, lost_at], pods[1], survivor)


def peers(pod: Pod) -> set[str]:
    """Return the addresses to which a pod has connections."""
    lines = [line.split() for line in pod.run(["cat", "/proc/net/tcp"]).stdout.splitlines()[1:]]
    remote = [line[2].partition(":")[0] for line in lines if line[3] == "01"]  # established; see proc_net_tcp(5)
    return {socket.inet_ntoa(int(address, 16).to_bytes(4, sys.byteorder)) for address in remote}


def listening(pod: Pod) -> list[str]:
    """Return where the processes of a pod listen for other pods, as host:port."""
    lines = [line.split() for line in pod.run(["cat", "/proc/net/tcp"]).stdout.splitlines()[1:]]
    local = [line[1].split(":") for line in lines if line[3] == "0A"]  # listening; see proc_net_tcp(5)
    return [f"{pod.address}:{int(port, 16)}" for address, port in local if not address.endswith("7F")]


def saved_step(job: IndexedJob) -> int:
    """Return the step of the newest checkpoint."""
    return int(newest_checkpoint(job.run).name.removeprefix("step-"))


def resumes(job: IndexedJob) -> list[int]:
    """Return the steps from which the run went on."""
    return [event["step"] for event in events(job.run) if event["event"] == "resume"]


def final_message(pod: Pod) -> str:
    return pod.err().splitlines()[-1]


def is_waiting(pod: Pod) -> bool:
    """Return whether a pod handles signals, and has no rank yet."""
    return pod.listens(signal.SIGUSR1) and not any(" distrain train " in line for line in pod.processes().values())


# Connects over and over, and sends lines that are no greeting; each connection stays open for a while.
STRANGER = """
import itertools, random, socket, sys, time
lines = [
    b"GET / HTTP/1.1\\r\\n\\r\\n",
    b"PUT /distrain/1 HTTP/1.1\\r\\nContent-Length: 9\\r\\n\\r\\n{\\"rank\\":",
    b"PUT /global/0 HTTP/1.1\\r\\nContent-Length: 999999999\\r\\n\\r\\n",
    b"distrain pod 1 of 2 at elsewhere:29400\\n",
    bytes(200_000),
    random.Random(0).randbytes(5000),
    b"",
]
kept, addresses = [], itertools.cycle(address.rsplit(":", 1) for address in sys.argv[1:])
for (host, port), line in zip(addresses, itertools.cycle(lines)):
    try:
        connection = socket.create_connection((host, int(port)), timeout=1)
        kept = [*kept[-20:], connection]
        connection.sendall(line)
        print("sent", flush=True)
    except OSError:
        pass
    time.sleep(0.02)
"""


def test_pods_train_the_model_that_one_process_trains(indexed_job, interrupted, reference):
    """Two pods of two ranks; pod 1 is drained while it waits, pod 0 starts late, a stranger sends rubbish."""
    job = indexed_job("together", reference.settings, ranks_per_pod=2)
    rendezvous = variables(job.spec["containers"][0])["DISTRAIN_RENDEZVOUS"]
    assert int(rendezvous.partition(":")[2]) in [port["containerPort"] for port in job.spec["containers"][0]["ports"]]

    drained = job.start(1)
    wait_until(lambda: is_waiting(drained))
    drained.signal(signal.SIGTERM)
    asked = time.monotonic()
    assert job.end([drained], job.spec["terminationGracePeriodSeconds"]) == [42]
    assert time.monotonic() - asked < 10

    stranger = job.network.start("stranger", ["python", "-c", STRANGER, rendezvous])
    second = job.start(1)
    wait_until(lambda: is_waiting(second))
    time.sleep(LATE_SECONDS)  # this delay is what the test is about
    assert is_waiting(second)
    first = job.start(0)
    wait_until(lambda: "sent" in stranger.out())
    assert job.end([first, second], 2 * STEP_SECONDS) == [0, 0], first.err() + second.err()
    stranger.remove()
    assert summary(job.run)["num_replicas"] == 4
    assert summary(job.run)["examples_trained"] == summary(reference.run)["examples_trained"]
    assert distance(job.run, reference.run) <= 1e-5


def test_a_pod_that_never_starts_is_named_by_all(indexed_job, interrupted, reference):
    job = indexed_job("never", reference.settings, num_pods=4)
    # The manifest allows 25 minutes; this test changes only that bound.
    pods = [job.start(index, DISTRAIN_RENDEZVOUS_SECONDS="6") for index in (1, 0)]
    assert job.end(pods, BOUND) == [5, 5]
    for index, pod in zip((1, 0), pods, strict=True):
        assert pod.err().startswith(f"distrain: error: pod {index}: Pods 2, 3 of 4 did not connect within 6 s. ")
        assert pod.err().count("\n") == 1


def test_pods_keep_their_place_and_end_as_one_process(interrupted, long_reference):
    """A drain, a lost rank, a lost chief's pod, a stranger at each socket: no step is lost or trained twice."""
    (job, resumed_at, survivor, lost), reference = interrupted, long_reference
    wait_until(lambda: "restart 2 of 10" in survivor.err(), what=survivor.err)
    assert "rank 0 (hurt-0) was lost after step" in survivor.err().splitlines()[-2]
    saved = saved_step(job)
    assert resumed_at[-1] < saved < reference.epochs * reference.steps_per_epoch

    lost.remove()  # and its name with it, as Kubernetes does with a pod that has ended
    pods = [job.start(0), survivor]
    wait_until(lambda: resumes(job) == [*resumed_at, saved], STEP_SECONDS, pods[0].err)
    addresses = [address for pod in pods for address in listening(pod)]
    assert addresses
    stranger = job.network.start("stranger", ["python", "-c", STRANGER, *addresses])  # to each socket of the job
    assert job.end(pods, 2 * STEP_SECONDS) == [0, 0], survivor.err()
    assert stranger.out().count("sent") >= len(addresses)
    stranger.remove()
    assert resumes(job) == [*resumed_at, saved]
    assert summary(job.run)["examples_trained"] == summary(reference.run)["examples_trained"]
    assert distance(job.run, reference.run) <= 1e-5

    # A pod that starts again now waits for no pod, because the others have completed; but only for exactly this run.
    soon = {"DISTRAIN_RENDEZVOUS_SECONDS": "1"}
    again, longer = job.start(1), job.start(1, "--epochs", str(reference.epochs + 1), **soon)
    assert job.end([again, longer], BOUND) == [0, 5]
    assert again.out() == "/runs/hurt is finished already. Ask for more --epochs, or train into another --run.\n"
    (job.run / "summary.json").unlink()
    assert job.end([job.start(1, **soon)], BOUND) == [5]
