"""MPIJob, TrainJob and TrainingRuntime: only fields that exist, and agreement with the image and its sshd."""

from __future__ import annotations

import copy
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dockerfile
import manifests
import pytest
import yaml
from manifests import REPOSITORY, find, overlay, render

from distrain.launchers import mpi_pod

FIELDS = tomllib.loads(Path(__file__).with_name("kubeflow_fields.toml").read_text())
KINDS = {
    "bool": lambda value: isinstance(value, bool),
    "count": lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    "text": lambda value: isinstance(value, str) and value != "",
    "texts": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    "path": lambda value: isinstance(value, str) and value.startswith("/"),
    "labels": lambda value: isinstance(value, dict) and all(isinstance(item, str) for item in value.values()),
    "metadata": lambda value: set(value) <= {"name", "namespace", "labels", "annotations"},
    "pod": lambda value: set(value) == {"metadata", "spec"},
    "job": lambda value: "template" in value,
}
CHECKS = REPOSITORY / ".venv-manifests" / "bin"  # launch/test.sh makes it
SSH_CLIENT = REPOSITORY / "k8s" / "mpi" / "ssh_config"
SSH_SERVER = REPOSITORY / "k8s" / "mpi" / "sshd_config"

pytestmark = manifests.needs_kubectl


@pytest.fixture(scope="module")
def overlays() -> dict[str, list[dict]]:
    return {name: overlay(name) for name in ("mpijob", "trainer")}


@pytest.fixture(scope="module")
def objects(overlays) -> list[dict]:
    """All objects of Kubeflow's kinds: of both overlays, and of a job of each layout with all options."""
    asked = ["--name=reviews", "--namespace=team", "--queue=gpus", "--pods=3", "--gpus=2", "--global-batch-size=96"]
    documents = [*overlays["mpijob"], *overlays["trainer"]]
    for layout in ("mpijob", "trainer"):
        documents += render(*asked, f"--layout={layout}")
    return [document for document in documents if document["kind"] in FIELDS]


def complaints(value: Any, rule: Any, path: str) -> Iterator[str]:
    """Yield the differences between an object and the listed fields."""
    if isinstance(rule, dict) and isinstance(value, dict):
        yield from (f"{path}.{name} is no field" for name in value.keys() - rule.keys())
        for name in value.keys() & rule.keys():
            yield from complaints(value[name], rule[name], f"{path}.{name}")
    elif isinstance(rule, list) and isinstance(rule[0], dict) and isinstance(value, list):
        for number, item in enumerate(value):
            yield from complaints(item, rule[0], f"{path}[{number}]")
    elif isinstance(rule, list) and not isinstance(rule[0], dict):
        if value not in rule:
            yield f"{path} is {value!r}, but must be one of {rule}"
    elif not isinstance(rule, str) or not KINDS[rule](value):
        yield f"{path} is {value!r}, but must be {rule}"


def test_all_fields_exist_and_have_values_that_do_what_they_say(objects):
    assert [item["kind"] for item in objects].count("MPIJob") == 2
    assert [item["kind"] for item in objects].count("TrainJob") == 2
    for item in objects:
        assert list(complaints(item, FIELDS[item["kind"]], item["kind"])) == []


@pytest.mark.parametrize(
    ("kind", "path", "value", "complaint"),
    [
        ("MPIJob", ["launcherCreationPolicy"], "WaitForWorkerReady", "must be one of ['AtStartup', 'WaitForWork"),
        ("MPIJob", ["launcherCreationpolicy"], "WaitForWorkersReady", "MPIJob.spec.launcherCreationpolicy is no field"),
        ("MPIJob", ["slotsPerWorker"], "2", "MPIJob.spec.slotsPerWorker is '2', but must be count"),
        ("MPIJob", ["mpiReplicaSpecs", "Workers"], {}, "MPIJob.spec.mpiReplicaSpecs.Workers is no field"),
        ("MPIJob", ["runPolicy", "podFailurePolicy"], {}, "MPIJob.spec.runPolicy.podFailurePolicy is no field"),
        ("TrainJob", ["trainer", "numNode"], 2, "TrainJob.spec.trainer.numNode is no field"),
        ("TrainingRuntime", ["mlPolicy", "mpi", "runLauncherAsWorker"], True, "mpi.runLauncherAsWorker is no field"),
        ("TrainingRuntime", ["template", "spec", "replicatedJobs", 1, "dependsOn", 0, "status"], "Readi", "[0].status"),
    ],
)
def test_a_slip_is_found(objects, kind, path, value, complaint):
    item = copy.deepcopy(next(item for item in objects if item["kind"] == kind))
    fields = item["spec"]
    for name in path[:-1]:
        fields = fields[name]
    fields[path[-1]] = value
    (found,) = complaints(item, FIELDS[kind], kind)
    assert complaint in found


@pytest.mark.skipif(not CHECKS.exists(), reason="there is no .venv-manifests; launch/test.sh makes it")
@pytest.mark.parametrize("release", ["1.31", "1.37"])
def test_the_jobs_of_a_runtime_are_valid(objects, release, tmp_path):
    head = {"apiVersion": "batch/v1", "kind": "Job"}
    jobs = [
        {**head, "metadata": {"name": job["name"], "namespace": "team"}, "spec": job["template"]["spec"]}
        for item in objects
        if item["kind"] == "TrainingRuntime"
        for job in item["spec"]["template"]["spec"]["replicatedJobs"]
    ]
    assert len(jobs) == 4
    file = tmp_path / "jobs.yaml"
    file.write_text(yaml.safe_dump_all(jobs))
    command = [CHECKS / "kubernetes-validate", "--strict", "--quiet", "-k", release, file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def pods(documents: list[dict]) -> dict[str, dict]:
    """Return the templates of launcher and worker."""
    kinds = {item["kind"]: item.get("spec") for item in documents}
    if "MPIJob" in kinds:
        replicas = kinds["MPIJob"]["mpiReplicaSpecs"]
        return {"launcher": replicas["Launcher"]["template"], "worker": replicas["Worker"]["template"]}
    jobs = {job["name"]: job for job in kinds["TrainingRuntime"]["template"]["spec"]["replicatedJobs"]}
    names = {"launcher": "launcher", "worker": "node"}
    return {role: jobs[name]["template"]["spec"]["template"] for role, name in names.items()}


@pytest.mark.parametrize("name", ["mpijob", "trainer"])
def test_launcher_and_workers_do_what_they_are_for(overlays, name):
    templates = pods(overlays[name])
    ((launcher,), (worker,)) = (templates[role]["spec"]["containers"] for role in ("launcher", "worker"))
    for container, role in ((launcher, "launcher"), (worker, "worker")):
        assert "command" not in container  # it would replace the image's entry point
        assert container["args"][:4] == ["python", "-m", "distrain.launchers.mpi_pod", role]
    assert worker["args"][4:] == []
    assert "nvidia.com/gpu" in worker["resources"]["limits"]
    assert "nvidia.com/gpu" not in launcher["resources"]["limits"]
    assert launcher["image"] == worker["image"]
    assert "initContainers" in templates["worker"]["spec"]  # ready when the data is
    assert "initContainers" not in templates["launcher"]["spec"]


def test_the_operator_finds_what_it_sets_itself(overlays):
    """The operator replaces restart policies, with a warning, and adds its own volumes, mounts and variables."""
    job = find(overlays["mpijob"], "MPIJob", "distrain")
    assert job["spec"]["launcherCreationPolicy"] == "WaitForWorkersReady"
    for template in pods([job]).values():
        (container,) = template["spec"]["containers"]
        assert "restartPolicy" not in template["spec"]
        assert not {"ssh-auth", "mpi-job-config"} & {volume["name"] for volume in template["spec"]["volumes"]}
        assert not any(item["name"].startswith(("OMPI_", "K_MPI_")) for item in container["env"])


def test_trainer_gives_the_arguments_to_the_launcher_alone(overlays):
    """In Kubeflow Trainer a Job of the set gets the arguments if it has labels, a container if its name is node."""
    documents = overlays["trainer"]
    runtime, run = (find(documents, kind, "distrain")["spec"] for kind in ("TrainingRuntime", "TrainJob"))
    node, launcher = runtime["template"]["spec"]["replicatedJobs"]
    assert "metadata" not in node["template"]
    assert launcher["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    assert launcher["dependsOn"] == [{"name": "node", "status": "Ready"}]
    for job in (node, launcher):
        assert [item["name"] for item in job["template"]["spec"]["template"]["spec"]["containers"]] == ["node"]
    (container,) = launcher["template"]["spec"]["template"]["spec"]["containers"]
    assert run["trainer"]["args"] == container["args"]
    assert "image" not in run["trainer"]  # it would be the launcher's alone
    assert runtime["template"]["spec"]["successPolicy"]["targetReplicatedJobs"] == ["launcher"]


def settings(file: Path) -> dict[str, str]:
    """Return the settings of ssh or sshd by name."""
    lines = (line.strip() for line in file.read_text().splitlines())
    return dict(line.split(maxsplit=1) for line in lines if line and not line.startswith(("#", "Host ")))


def test_ssh_sshd_and_manifests_agree(overlays):
    client, server = settings(SSH_CLIENT), settings(SSH_SERVER)
    assert int(client["Port"]) == int(server["Port"]) == mpi_pod.PORT
    for name, key in (("mpijob", "MPIJob"), ("trainer", "TrainingRuntime")):
        documents = overlays[name]
        (worker,) = pods(documents)["worker"]["spec"]["containers"]
        assert [port["containerPort"] for port in worker["ports"]] == [mpi_pod.PORT]
        assert worker["readinessProbe"]["tcpSocket"]["port"] == mpi_pod.PORT
        assert f"/dev/tcp/localhost/{mpi_pod.PORT})" in worker["startupProbe"]["exec"]["command"][2]
        spec = find(documents, key, "distrain")["spec"]
        keys = (spec if key == "MPIJob" else spec["mlPolicy"]["mpi"])["sshAuthMountPath"]
        assert client["IdentityFile"] == server["HostKey"] == f"{keys}/id_rsa"
        assert server["AuthorizedKeysFile"] == f"{keys}/authorized_keys"
        assert f"{keys}/id_rsa.pub" in client["KnownHostsCommand"]


def test_the_startup_probe_of_a_worker_waits_for_sshd_and_never_fails(overlays):
    """A failed probe would be a warning among the events of every start."""
    (worker,) = pods(overlays["mpijob"])["worker"]["spec"]["containers"]
    (trained,) = pods(overlays["trainer"])["worker"]["spec"]["containers"]
    assert worker["startupProbe"] == trained["startupProbe"]
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        command = [
            word.replace(f"localhost/{mpi_pod.PORT}", f"127.0.0.1/{server.getsockname()[1]}")
            for word in worker["startupProbe"]["exec"]["command"]
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as probe:
            with pytest.raises(subprocess.TimeoutExpired):
                probe.wait(1)
            server.listen()
            out, _ = probe.communicate(timeout=30)
    assert (probe.returncode, out) == (0, b"")


def test_ranks_have_the_environment_of_the_image():
    """Processes that sshd starts do not inherit the environment of the container."""
    stages = dockerfile.parse((REPOSITORY / "k8s" / "Dockerfile").read_text()).stages
    (words,) = (step.words for step in stages["runtime"].steps if step.name == "ENV")
    assert settings(SSH_SERVER)["SetEnv"] == words
    assert re.fullmatch(r"PATH=\S+ HOME=/tmp", words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["workers"], "start mpi_pod with the argument `worker`, or"),
        (["launcher", "--data=/data"], "/etc/mpi/hostfile cannot be read (No such file or directory); the operator"),
    ],
)
def test_a_wrong_start_is_refused_in_one_line(words, said):
    if Path("/etc/mpi/hostfile").exists():
        pytest.skip("this machine is the launcher of an MPIJob")
    command = [sys.executable, "-m", "distrain.launchers.mpi_pod", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"distrain: error: {said}")
    assert len(done.stderr.splitlines()) == 1
