"""`apply` and `delete` of `launch/k8s.sh`, with a real kubectl and a server that speaks Kubernetes' API."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import manifests
import pytest
from cluster_pods import COMMON, add_pod
from kubernetes_api import serving

pytestmark = manifests.needs_kubectl


def test_apply_sends_what_render_prints(cluster, script):
    asked = ["--name=a", "--layout=indexed", "--protect", "--", "--model=$(HOME) 'x'\n: - é"]
    done = script(cluster, "apply", *asked)
    assert (done.returncode, done.stderr) == (0, "")
    rendered = manifests.render(*asked)
    its = {(kind, "a") for kind in ("jobs", "services", "networkpolicies", "poddisruptionbudgets")}
    assert cluster.names() == COMMON | its
    for document in rendered:
        sent = cluster.objects[
            f"{document['kind'].lower()}s".replace("policys", "policies"), document["metadata"]["name"]
        ]
        assert sent.get("spec") == document.get("spec")
    again = script(cluster, "apply", *asked)
    assert again.returncode == 0
    patched = [request for request in cluster.requests if request.startswith("PATCH")]
    assert patched == ["PATCH poddisruptionbudgets/a"]  # kubectl always replaces its selector


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
    assert "DELETE jobs/a Foreground" in cluster.requests  # the Job stays until its pods have saved and ended
    deleted = [request.split()[1] for request in cluster.requests if request.startswith("DELETE")]
    assert deleted.index("services/a") > deleted.index("jobs/a")  # its name serves the pods to their end
    assert script(cluster, "delete", "--name=a", "--claims").returncode == 0
    assert cluster.names() == {("serviceaccounts", "distrain")} | of_b


@pytest.mark.parametrize("layout", ["mpijob", "trainer", "indexed"])
def test_objects_of_operators_are_sent_in_order_and_deleted(cluster_with_operators, script, layout):
    """The server refuses an object that refers to what does not exist yet."""
    cluster = cluster_with_operators
    more = ["--gang=volcano"] if layout == "indexed" else []
    done = script(cluster, "apply", "--name=a", f"--layout={layout}", *more)
    assert (done.returncode, done.stderr) == (0, "")
    kinds = {"mpijob": {"mpijobs"}, "trainer": {"trainjobs", "trainingruntimes"}}
    kinds["indexed"] = {"jobs", "services", "podgroups"}
    assert cluster.names() == COMMON | {(kind, "a") for kind in kinds[layout] | {"networkpolicies"}}
    assert script(cluster, "delete", "--name=a", "--dry-run").returncode == 0
    assert ("networkpolicies", "a") in cluster.names()
    assert script(cluster, "delete", "--name=a").returncode == 0
    assert cluster.names() == COMMON
    policies = {"mpijob": "mpijobs/a Foreground", "trainer": "trainjobs/a Background", "indexed": "jobs/a Foreground"}
    assert f"DELETE {policies[layout]}" in cluster.requests  # Trainer makes a JobSet again while its TrainJob is there


def test_an_overlay_is_applied_at_once_and_deleted_alone(cluster_with_operators, tmp_path):
    cluster = cluster_with_operators
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig(tmp_path)), "HOME": str(tmp_path)}

    def kubectl(verb: str, folder: str) -> None:
        command = ["kubectl", verb, "-k", manifests.REPOSITORY / "k8s" / folder]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert [line for line in done.stderr.splitlines() if "Sorting order is set both" not in line] == []

    kubectl("apply", "shared")
    for layout in manifests.OVERLAYS:
        kubectl("apply", f"overlays/{layout}")
        assert len(cluster.names()) > len(COMMON)
        kubectl("delete", f"overlays/{layout}")
        assert cluster.names() == COMMON


def test_claims_that_exist_stay_as_they_are(cluster, script):
    assert script(cluster, "apply", "--layout=shared", "--access=ReadWriteOnce").returncode == 0
    assert cluster.names() == COMMON
    done = script(cluster, "apply", "--name=a")
    assert (done.returncode, done.stderr) == (0, "")
    claim = cluster.objects["persistentvolumeclaims", "distrain-data"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    del cluster.objects["persistentvolumeclaims", "distrain-runs"]
    assert script(cluster, "apply", "--name=b", "--no-claims").returncode == 1  # this server wants the claim
    assert script(cluster, "apply", "--name=b").returncode == 0
    cluster.requests.clear()
    assert script(cluster, "apply", "--name=c", "--access=ReadWriteMany").returncode == 0
    assert "PATCH persistentvolumeclaims/distrain-data" in cluster.requests  # Kubernetes refuses it, with the reason


def test_a_dry_run_changes_nothing(cluster, script):
    assert script(cluster, "apply", "--layout=shared").returncode == 0
    before = cluster.names()
    for option in ("--dry-run", "--dry-run=client"):
        done = script(cluster, "apply", "--name=a", "--layout=indexed", option, "-nteam")
        assert (done.returncode, done.stderr) == (0, "")
        assert "dry run" in done.stdout
        assert cluster.names() == before


def test_a_namespace_may_be_given_as_to_kubectl(cluster, script):
    for options in (["-n", "elsewhere"], ["-nelsewhere"], ["-n=elsewhere"], ["--namespace=elsewhere"]):
        cluster.objects.clear()
        done = script(cluster, "apply", "--layout=shared", *options)
        assert (done.returncode, done.stderr) == (0, "")
        assert {one["metadata"]["namespace"] for one in cluster.objects.values()} == {"elsewhere"}
        assert script(cluster, "status", "--name=a", *options).returncode == 0


def test_nothing_is_sent_if_the_command_is_wrong(cluster, script):
    assert script(cluster, "apply", "--name=a", "--", "--epoch", "3").returncode == 2
    assert cluster.names() == set()


def test_files_are_copied_to_the_same_folder_each_time(cluster, tmp_path):
    """The command of the guide, twice, with a real `kubectl cp` and a real `tar`."""
    (command,) = re.findall(
        r"^\$ (kubectl cp text/\S*) ", (manifests.REPOSITORY / "k8s" / "README.md").read_text(), re.M
    )
    add_pod(cluster, "pod", progress="run")
    (tmp_path / "text").mkdir()
    (tmp_path / "data").mkdir()
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig(tmp_path)), "HOME": str(tmp_path)}
    for text in ("one", "two"):
        (tmp_path / "text" / "train.csv").write_text(text)
        words = [*command.split(), f"pod:{tmp_path}/data/text"]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
        assert [(str(path.relative_to(tmp_path)), path.read_text()) for path in found] == [
            ("data/text/train.csv", text)
        ]


def test_a_cluster_that_does_not_answer_is_kubectls_error(script, tmp_path: Path):
    with serving() as cluster:
        pass
    done = script(cluster, "status", "--name=a")
    assert done.returncode == 1
    assert "127.0.0.1" in done.stderr
