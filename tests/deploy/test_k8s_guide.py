"""The first part of the README of k8s, line by line in one shell, with a real kubectl.

A server without controllers stands in for the cluster. Commands that need an image, a node or a controller are noted
instead: docker, kind, `distrain predict`, and `kubectl` with create, label, wait, exec and cp.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import manifests
from cluster_pods import COMMON, add_pod
from kubernetes_api import Cluster

GUIDE = manifests.REPOSITORY / "k8s" / "README.md"
NOTED = """#!/bin/sh
case "${0##*/} $1 ${2:-}" in
  docker* | kind*) echo "${0##*/} $*" >>"$NOTES" ;;
  distrain*) cat >/dev/null; echo "${0##*/} $*" >>"$NOTES" ;; # or the program before the pipe ends with SIGPIPE
  "kubectl create "* | "kubectl label "* | "kubectl wait "* | "kubectl exec job/"* | "kubectl cp "*)
    echo "${0##*/} $*" >>"$NOTES" ;;
  kubectl*) exec "$KUBECTL" "$@" ;;
esac
"""

pytestmark = manifests.needs_kubectl


def blocks(heading: str, end: str) -> list[list[str]]:
    """Return the commands of each code block between two texts of the guide."""
    part = GUIDE.read_text().partition(heading)[2].partition(end)[0]
    found = [re.findall(r"^\$ (.*)$", block, re.M) for block in re.findall(r"```\n(.*?)```", part, re.S)]
    return [lines for lines in found if lines]


class Reader:
    """Somebody who types the lines of the guide into one shell."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self._notes, self._variables = folder / "notes", ""
        programs = folder / "programs"
        programs.mkdir()
        for name in ("docker", "kind", "kubectl", "distrain"):
            (programs / name).write_text(NOTED)
            (programs / name).chmod(0o755)
        for name in ("launch", "k8s"):
            (folder / name).symlink_to(manifests.REPOSITORY / name)
        kubectl = subprocess.run(["which", "kubectl"], capture_output=True, text=True, check=True).stdout.strip()
        self._environ = {**os.environ, "NOTES": str(self._notes), "KUBECTL": kubectl, "HOME": str(folder)}
        self._environ |= {"KUBECONFIG": str(cluster.kubeconfig(folder)), "PATH": f"{programs}:{os.environ['PATH']}"}
        self._folder = folder

    def type(self, line: str) -> str:
        """Run a line, and return its output."""
        line = line.replace("REGISTRY/", "registry.example/").replace("sha256:...", "sha256:" + 64 * "0")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{self._variables}\n{line}"],
            cwd=self._folder,
            env=self._environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (line, done.stderr)
        if re.match(r"\w+=", line):
            self._variables += f"\n{line}"
        return done.stdout

    def noted(self) -> list[str]:
        """Return the commands that were noted."""
        return self._notes.read_text().splitlines()


def test_from_nothing_to_a_model(cluster, tmp_path):
    reader = Reader(tmp_path, cluster)
    ours = {"app.kubernetes.io/instance": "reviews"}
    image, namespace, files, data, train, model = blocks("## From nothing to a model", "**Without the script**")
    for line in image + namespace + files[:2]:
        reader.type(line)
    assert cluster.names() == COMMON | {("jobs", "reviews-files"), ("networkpolicies", "reviews")}
    add_pod(cluster, "reviews-files-x", component="files", **ours)
    for line in files[2:] + data + train[:1]:
        reader.type(line)
    assert {("jobs", "reviews-prepare"), ("jobs", "reviews"), ("services", "reviews")} <= cluster.names()
    assert cluster.objects["jobs", "reviews"]["spec"]["completions"] == 4
    index = {"batch.kubernetes.io/job-completion-index": "0"}
    add_pod(cluster, "reviews-0-x", log="epoch 1/20\n", progress='{"step": 7}\n', **ours, **index)
    status, logs = train[1:]
    assert reader.type(status).endswith('{"step": 7}\n')
    assert reader.type(logs) == "epoch 1/20\n"
    for line in model:
        reader.type(line)
    assert cluster.names() & {("jobs", "reviews"), ("services", "reviews"), ("networkpolicies", "reviews")} == set()
    assert cluster.names() >= COMMON
    assert reader.noted() == [
        "docker build -f k8s/Dockerfile -t registry.example/distrain:0.1.0 --build-arg DEVICE=gpu .",
        "docker push registry.example/distrain:0.1.0",
        "kubectl create namespace team",
        "kubectl label namespace team pod-security.kubernetes.io/enforce=restricted",
        "kubectl cp text/. reviews-files-x:/data/text",
        "kubectl wait --for=condition=Complete job/reviews-prepare --timeout=1h",
        "kubectl cp reviews-files-x:/runs/reviews runs/reviews",
        "distrain predict --run runs/reviews",
    ]


def test_on_a_laptop(cluster, tmp_path):
    reader = Reader(tmp_path, cluster)
    (lines,) = blocks("**On a laptop**", "## Which layout")
    for line in lines[:-1]:
        reader.type(line)
    assert cluster.objects["persistentvolumeclaims", "distrain-runs"]["spec"]["accessModes"] == ["ReadWriteOnce"]
    (container,) = cluster.objects["jobs", "try"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"] == {"cpu": "1", "memory": "3Gi"}
    index = {"batch.kubernetes.io/job-completion-index": "0"}
    add_pod(cluster, "try-0-x", progress='{"step": 7}\n', **{"app.kubernetes.io/instance": "try"}, **index)
    assert reader.type(lines[-1]).endswith('{"step": 7}\n')
