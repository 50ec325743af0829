"""The Indexed Job of `launch/k8s.sh render`, each index in a pod made of namespaces, as a cluster would start it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from launching import needs_horovod
from pods import IMAGE_ENV, USER, Mount, Network, Pod, missing, pod_network
from safetensors.numpy import load_file

REPOSITORY = Path(__file__).resolve().parents[2]
DISTRAIN = [sys.executable, "-m", "distrain"]
BOUND = 60  # seconds within which a job ends when one of its pods is gone
STARTED = 120  # seconds in which a pod has surely trained a step, on a machine that has other work
EPOCHS, NUM_ROWS, STEPS_PER_EPOCH = 40, 1000, 5
TRAINING = ["--epochs", str(EPOCHS), "--patience", "0", "--global-batch-size", "240", "--devices", "cpu:1"]

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which renders the manifest, is not installed"),
    needs_horovod,
]


@dataclass(frozen=True)
class IndexedJob:
    """A rendered Indexed Job, and what a cluster would give its pods.

    Attributes:
        manifest: of the Job.
        volumes: claim -> folder.
        network: where its pods run.
    """

    manifest: dict[str, Any]
    volumes: dict[str, Path]
    network: Network

    @property
    def name(self) -> str:
        """Of the Job."""
        return self.manifest["metadata"]["name"]

    @property
    def spec(self) -> dict[str, Any]:
        """Of each pod."""
        return self.manifest["spec"]["template"]["spec"]

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.volumes["distrain-runs"] / self.name

    def start(self, index: int, *more: str, **changed: str) -> Pod:
        """Start the pod of an index, as a kubelet does.

        Args:
            index: completion index.
            more: further arguments.
            changed: environment that is not as in the manifest.
        """
        for container in self.spec["initContainers"]:
            before = self._start(index, container)
            assert before.wait(BOUND) == 0, before.err()
            before.remove()
        return self._start(index, self.spec["containers"][0], more, changed)

    def _start(self, index: int, container: dict[str, Any], more: Any = (), changed: Any = ()) -> Pod:
        context = {**self.spec["securityContext"], **container["securityContext"]}
        assert (context["runAsUser"], context["runAsGroup"]) == (USER, USER)
        assert context["readOnlyRootFilesystem"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        # The image's ENTRYPOINT, tini, would stand before them. Number 1 is the command itself here, which is harder.
        assert "command" not in container
        env = {variable["name"]: unescaped(variable["value"]) for variable in container.get("env", [])}
        return self.network.start(
            f"{self.name}-{index}",
            [*map(unescaped, container["args"]), *more],
            subdomain=self.spec["subdomain"],
            env={**IMAGE_ENV, **env, "JOB_COMPLETION_INDEX": str(index), **dict(changed)},
            mounts=[self._mount(mount) for mount in container["volumeMounts"]],
        )

    def _mount(self, mount: dict[str, Any]) -> Mount:
        (volume,) = (volume for volume in self.spec["volumes"] if volume["name"] == mount["name"])
        assert "subPath" not in mount
        claim = volume.get("persistentVolumeClaim")
        source = self.volumes[claim["claimName"]] if claim else None
        assert claim or "emptyDir" in volume
        return Mount(mount["mountPath"], source, read_only=mount.get("readOnly", False))

    def end(self, pods: list[Pod], seconds: float) -> list[int]:
        """The exit codes of pods, which are removed then."""
        deadline = time.monotonic() + seconds
        codes = [pod.wait(max(0.0, deadline - time.monotonic())) for pod in pods]
        for pod in pods:
            assert pod.processes() == {}
            pod.remove()
        return codes

    @property
    def log(self) -> Path:
        """Of what happens in the run."""
        return self.run / "metrics.jsonl"

    def steps(self) -> int:
        """Steps that the run has logged."""
        return max((event["step"] for event in events(self.log)), default=0) if self.log.exists() else 0

    def await_step(self, step: int, pods: list[Pod]) -> None:
        """Wait until running pods have trained a step."""
        deadline = time.monotonic() + STARTED
        while self.steps() < step:
            said = [pod.err() for pod in pods]
            assert [pod.process.poll() for pod in pods] == [None] * len(pods), said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)

    def saved(self) -> int:
        """Step of the newest checkpoint."""
        return int(max((self.run / "checkpoints").glob("step-*")).name.removeprefix("step-"))

    def summary(self) -> dict[str, Any]:
        """Of the finished run."""
        return json.loads((self.run / "summary.json").read_text())


def unescaped(text: str) -> str:
    """What Kubernetes makes of an argument or a variable without references: $$ is $."""
    assert "$(" not in text.replace("$$", "")
    return text.replace("$$", "$")


def events(log: Path) -> list[dict[str, Any]]:
    lines = log.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def weights(run: Path) -> dict[str, np.ndarray]:
    arrays = load_file(max((run / "checkpoints").glob("step-*")) / "arrays.safetensors")
    return {name: array for name, array in arrays.items() if name.startswith("model/") and array.dtype.kind == "f"}


def distance(run: Path, other: Path) -> float:
    """The largest difference between weights, as a share of the largest weight."""
    expected, found = weights(other), weights(run)
    assert expected.keys() == found.keys()
    largest = max(np.abs(array).max() for array in expected.values())
    return max(np.abs(expected[name] - found[name]).max() for name in expected) / largest


def last_word(pod: Pod) -> str:
    return pod.err().splitlines()[-1]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Claims: prepared data, and an empty folder for runs; both as `fsGroup` would have them."""
    place = tmp_path_factory.mktemp("pods")
    (place / "runs").mkdir()
    for command in (
        ["synth", "--out", "text", "--rows", str(NUM_ROWS), "--seed", "3"],
        ["prepare", "--train", "text/train.csv", "--test", "text/test.csv", "--out", "data/text", "--top-k", "500"],
    ):
        subprocess.run([*DISTRAIN, *command], cwd=place, capture_output=True, check=True)
    for path in (place / "runs", *(place / "data").rglob("*")):
        os.chown(path, USER, USER)
    return {"distrain-data": place / "data", "distrain-runs": place / "runs"}


@pytest.fixture(scope="module")
def alone(volumes: dict[str, Path]) -> Path:
    """The run directory of one process."""
    run = volumes["distrain-runs"] / "alone"
    command = [*DISTRAIN, "train", "--data", str(volumes["distrain-data"] / "text"), "--run", str(run), *TRAINING]
    subprocess.run([*command, "--strategy", "single"], capture_output=True, check=True)
    return run


@pytest.fixture(scope="module")
def indexed_job(volumes: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """`indexed_job(name, pods, ranks)`: rendered, with nothing started yet."""

    def render(name: str, *, pods: int = 2, ranks: int = 1) -> IndexedJob:
        script = str(REPOSITORY / "launch" / "k8s.sh")
        numbers = ["--pods", str(pods), "--gpus", "0", "--ranks", str(ranks)]
        command = [script, "render", "--name", name, "--layout", "indexed", *numbers, "--data", "/data/text"]
        done = subprocess.run([*command, "--", *TRAINING], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        documents = {document["kind"]: document for document in yaml.safe_load_all(done.stdout)}
        job, service = documents["Job"], documents["Service"]
        assert job["spec"]["completionMode"] == "Indexed"
        assert job["spec"]["completions"] == job["spec"]["parallelism"] == pods
        # The name that the pods look for is one that the Service gives, before they are ready.
        assert service["metadata"]["name"] == job["spec"]["template"]["spec"]["subdomain"]
        assert service["spec"]["publishNotReadyAddresses"]
        labels = job["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
        return IndexedJob(job, volumes, network)

    place = tmp_path_factory.mktemp("network")
    with pod_network(place) as network:
        yield render


# Connects and sends what nobody there understands, over and over; each connection stays open for a while.
STRANGER = """
import itertools, random, socket, sys, time
words = [
    b"GET / HTTP/1.1\\r\\n\\r\\n",
    b"PUT /distrain/1 HTTP/1.1\\r\\nContent-Length: 9\\r\\n\\r\\n{\\"rank\\":",
    b"PUT /global/0 HTTP/1.1\\r\\nContent-Length: 999999999\\r\\n\\r\\n",
    b"distrain pod 1 of 2 at elsewhere:29400\\n",
    bytes(200_000),
    random.Random(0).randbytes(5000),
    b"",
]
kept = []
for word in itertools.cycle(words):
    try:
        there = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1)
        kept = [*kept[-20:], there]
        there.sendall(word)
        print("sent", flush=True)
    except OSError:
        pass
    time.sleep(0.02)
"""


def test_pods_train_the_model_that_one_process_trains(indexed_job, request):
    """Two pods of two ranks; pod 1 is drained while it waits, pod 0 comes 20 seconds late, a stranger talks rubbish."""
    job = indexed_job("together", ranks=2)
    variables = {variable["name"]: variable["value"] for variable in job.spec["containers"][0]["env"]}
    host, _, port = variables["DISTRAIN_RENDEZVOUS"].partition(":")
    assert int(port) in [port["containerPort"] for port in job.spec["containers"][0]["ports"]]

    drained = job.start(1)
    wait_until(lambda: waits(drained), BOUND)
    drained.signal(signal.SIGTERM)
    asked = time.monotonic()
    assert job.end([drained], job.spec["terminationGracePeriodSeconds"]) == [42]
    assert time.monotonic() - asked < 10

    stranger = job.network.start("stranger", ["python", "-c", STRANGER, host, port])
    second = job.start(1)
    late = time.monotonic() + 20
    alone = request.getfixturevalue("alone")  # meanwhile
    time.sleep(max(0, late - time.monotonic()))  # what is tested
    assert waits(second)
    first = job.start(0)
    wait_until(lambda: "sent" in stranger.out(), BOUND)
    assert job.end([first, second], 2 * STARTED) == [0, 0], first.err() + second.err()
    stranger.remove()
    assert job.summary()["num_replicas"] == 4
    assert job.summary()["examples_trained"] == EPOCHS * NUM_ROWS
    assert distance(job.run, alone) <= 1e-5


def test_drained_and_killed_pods_go_on_where_they_were(indexed_job, alone):
    """A drain, a kill, and in the end the model of one process: no step is lost or done twice."""
    job = indexed_job("hurt")
    probe = job.spec["containers"][0]["livenessProbe"]["exec"]["command"]
    grace = job.spec["terminationGracePeriodSeconds"]

    pods = [job.start(index) for index in (0, 1)]
    job.await_step(2 * STEPS_PER_EPOCH, pods)
    assert pods[1].run(probe).returncode == 0
    assert peers(pods[1]) == {pods[0].address}  # nothing goes over a loopback that they would not share
    pods[1].signal(signal.SIGTERM)
    assert job.end(pods, grace) == [42, 42], [pod.err() for pod in pods]
    assert "Stopped by SIGTERM to rank 1" in last_word(pods[0])
    assert last_word(pods[1]).startswith("distrain: stopped: pod 1: ")
    drained_at = job.steps()
    assert job.saved() == drained_at < EPOCHS * STEPS_PER_EPOCH

    pods = [job.start(index) for index in (0, 1)]
    job.await_step(drained_at + 2 * STEPS_PER_EPOCH, pods)
    pods[1].kill()
    assert job.end(pods[:1], BOUND) == [5], pods[0].err()
    assert "rank 1 (hurt-1) was lost after step" in last_word(pods[0])
    pods[1].remove()
    saved = job.saved()
    assert drained_at < saved < EPOCHS * STEPS_PER_EPOCH

    pods = [job.start(index) for index in (0, 1)]
    assert job.end(pods, 2 * STARTED) == [0, 0], [pod.err() for pod in pods]
    assert [event["step"] for event in events(job.log) if event["event"] == "resume"] == [drained_at, saved]
    assert job.summary()["examples_trained"] == EPOCHS * NUM_ROWS
    assert distance(job.run, alone) <= 1e-5

    # A pod that starts again now waits for nobody, as the others have completed for good; but only for this very run.
    soon = {"DISTRAIN_RENDEZVOUS_SECONDS": "1"}
    again, longer = job.start(1), job.start(1, "--epochs", str(EPOCHS + 1), **soon)
    assert job.end([again, longer], BOUND) == [0, 5]
    assert again.out() == "/runs/hurt is finished already. Ask for more --epochs, or train into another --run.\n"
    (job.run / "summary.json").unlink()
    assert job.end([job.start(1, **soon)], BOUND) == [5]


def test_a_pod_that_never_comes_is_named_by_all(indexed_job):
    job = indexed_job("never", pods=3)
    # Bounded by the manifest's ten minutes; nothing else is changed.
    pods = [job.start(index, DISTRAIN_RENDEZVOUS_SECONDS="6") for index in (1, 0)]
    assert job.end(pods, BOUND) == [5, 5]
    for index, pod in zip((1, 0), pods, strict=True):
        assert pod.err().startswith(f"distrain: error: pod {index}: Pod 2 of 3 did not connect within 6 s. ")
        assert pod.err().count("\n") == 1


def peers(pod: Pod) -> set[str]:
    """The addresses that a pod has connections with."""
    lines = [line.split() for line in pod.run(["cat", "/proc/net/tcp"]).stdout.splitlines()[1:]]
    remote = [line[2].partition(":")[0] for line in lines if line[3] == "01"]  # established; see proc_net_tcp(5)
    return {socket.inet_ntoa(int(address, 16).to_bytes(4, sys.byteorder)) for address in remote}


def waits(pod: Pod) -> bool:
    """Whether a pod has come as far as to wait for others, and has no rank."""
    return pod.listens(signal.SIGUSR1) and not any(" distrain train " in line for line in pod.processes().values())
