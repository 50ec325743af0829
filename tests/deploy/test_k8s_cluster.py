"""`launch/k8s.sh` with a real kubectl and a server that speaks Kubernetes' API: sent, shown and deleted objects."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import manifests
import pytest
from kubernetes_api import NAMESPACE, Cluster, serving

pytestmark = manifests.needs_kubectl

Script = Callable[..., subprocess.CompletedProcess[str]]
COMMON = {("serviceaccounts", "distrain"), ("persistentvolumeclaims", "distrain-data")}
COMMON |= {("persistentvolumeclaims", "distrain-runs")}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with serving() as one:
        yield one


@pytest.fixture
def cluster_with_operators() -> Iterator[Cluster]:
    with serving(with_operators=True) as one:
        yield one


@pytest.fixture
def script(tmp_path) -> Script:
    """`script(cluster, *arguments)` runs the script against a cluster."""

    def run(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig(tmp_path)), "HOME": str(tmp_path)}
        done = manifests.run(*arguments, env=environment)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


def add_pod(cluster: Cluster, name: str, *, component: str = "train", log: str = "", progress: str = "", **labels: str):
    ours = {f"app.kubernetes.io/{key}": value for key, value in {"part-of": "distrain", "instance": "a"}.items()}
    cluster.objects["pods", name] = {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {**ours, "app.kubernetes.io/component": component, **labels},
            "annotations": {"log": log, "exec": progress},
            "creationTimestamp": f"2026-01-01T00:00:{len(cluster.objects):02}Z",
        },
        "spec": {"containers": [{"name": "distrain"}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "distrain", "state": {"running": {}}}]},
    }
    return cluster.objects["pods", name]


def add_warning(cluster: Cluster, about: str, reason: str, message: str) -> None:
    name = f"event-{len(cluster.objects)}"
    cluster.objects["events", name] = {
        "kind": "Event",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": NAMESPACE, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "involvedObject": {"kind": "Pod", "name": about},
        "reason": reason,
        "message": message,
    }


def test_apply_sends_what_render_prints(cluster, script):
    asked = ["--name=a", "--layout=indexed", "--", "--model=$(HOME) 'x'\n: - é"]
    done = script(cluster, "apply", *asked)
    assert (done.returncode, done.stderr) == (0, "")
    rendered = manifests.render(*asked)
    assert cluster.names() == COMMON | {("jobs", "a"), ("services", "a"), ("networkpolicies", "a")}
    for document in rendered:
        sent = cluster.objects[
            f"{document['kind'].lower()}s".replace("policys", "policies"), document["metadata"]["name"]
        ]
        assert sent.get("spec") == document.get("spec")
    again = script(cluster, "apply", *asked)
    assert again.returncode == 0
    assert not any(request.startswith("PATCH") for request in cluster.requests)


def test_apply_of_another_job_with_the_same_name_names_the_cure(cluster, script):
    assert script(cluster, "apply", "--name=a").returncode == 0
    done = script(cluster, "apply", "--name=a", "--epochs=5")
    assert done.returncode == 1
    assert "field is immutable" in done.stderr
    assert "launch/k8s.sh delete --name a, and apply again" in done.stderr


def test_delete_keeps_the_data_and_the_runs_without_claims(cluster, script):
    script(cluster, "apply", "--name=a", "--layout=indexed")
    script(cluster, "apply", "--name=a", "--layout=prepare", "--train=/data/text/train.csv")
    script(cluster, "apply", "--name=b")
    of_b = {("jobs", "b"), ("networkpolicies", "b")}
    assert ("jobs", "a-prepare") in cluster.names()
    assert script(cluster, "delete", "--name=a").returncode == 0
    assert cluster.names() == COMMON | of_b
    assert script(cluster, "delete", "--name=a", "--claims").returncode == 0
    assert cluster.names() == {("serviceaccounts", "distrain")} | of_b


def test_objects_of_operators_are_deleted_where_the_cluster_knows_them(cluster_with_operators, script):
    script(cluster_with_operators, "apply", "--name=a", "--layout=mpijob")
    assert ("mpijobs", "a") in cluster_with_operators.names()
    assert script(cluster_with_operators, "delete", "--name=a").returncode == 0
    assert cluster_with_operators.names() == COMMON


def test_logs_and_progress_are_the_chiefs(cluster, script):
    index = "batch.kubernetes.io/job-completion-index"
    add_pod(cluster, "a-0-old", log="before\n", **{index: "0"})
    add_pod(cluster, "a-0-new", log="chief\n", progress='{"step": 7}\n', **{index: "0"})
    add_pod(cluster, "a-1-new", log="other\n", **{index: "1"})
    add_pod(cluster, "a-prepare-x", component="prepare", log="prepared\n")
    assert script(cluster, "logs", "--name=a").stdout == "chief\n"
    assert script(cluster, "logs", "--name=a", "--layout=prepare").stdout == "prepared\n"
    status = script(cluster, "status", "--name=a")
    assert status.returncode == 0
    assert status.stdout.endswith('{"step": 7}\n')
    none = script(cluster, "logs", "--name=b")
    assert none.returncode == 1
    assert none.stderr.startswith("error: there is no pod of b")


def test_logs_of_an_operators_job_are_the_launchers(cluster, script):
    add_pod(cluster, "a-launcher-x", log="launcher\n", **{"training.kubeflow.org/job-role": "launcher"})
    add_pod(cluster, "a-worker-0", log="worker\n", **{"training.kubeflow.org/job-role": "worker"})
    assert script(cluster, "logs", "--name=a").stdout == "launcher\n"
    for pod in ("a-launcher-x", "a-worker-0"):
        del cluster.objects["pods", pod]
    replicated = "jobset.sigs.k8s.io/replicatedjob-name"
    add_pod(cluster, "a-launcher-0-0-x", log="launcher\n", **{replicated: "launcher"})
    add_pod(cluster, "a-node-0-0-x", log="worker\n", **{replicated: "node"})
    assert script(cluster, "logs", "--name=a").stdout == "launcher\n"


def test_status_says_why_a_job_does_not_go_on(cluster, script):
    add_pod(cluster, "a-0")["status"] = {"phase": "Pending"}
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    add_pod(cluster, "a-1")["status"] = {"phase": "Failed", "containerStatuses": [{"name": "distrain", "state": ended}]}
    add_warning(cluster, "a-0", "FailedScheduling", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
    add_warning(cluster, "ab-0", "FailedScheduling", "of another job")
    add_warning(cluster, "a", "FailedCreate", 'pods "a-1" is forbidden: exceeded quota')
    lines = script(cluster, "status", "--name=a").stdout.splitlines()
    assert "a-1: ended with exit code 137, OOMKilled" in lines
    assert "a-0: FailedScheduling: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu." in lines
    assert 'a: FailedCreate: pods "a-1" is forbidden: exceeded quota' in lines
    assert not any("another job" in line for line in lines)
    assert "a-1 reports no progress: it does not run, or has not begun to train." in lines


def test_a_cluster_that_does_not_answer_is_kubectls_error(script, tmp_path: Path):
    with serving() as cluster:
        pass
    done = script(cluster, "status", "--name=a")
    assert done.returncode == 1
    assert "127.0.0.1" in done.stderr
