"""The Indexed Job of `launch/k8s.sh render`, and its pods in namespaces, started as a cluster would start them.

with pod_network(folder) as network:
    job = render_job("reviews", ["--epochs", "3"], volumes, network, num_pods=2)
    pods = [job.start(index) for index in (0, 1)]
    assert job.end(pods, seconds=60) == [0, 0]
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from manifests import replaced, variables
from pod_root import USER, Mount
from pods import IMAGE_ENV, Network, Pod
from run_files import last_step
from waiting import BOUND, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
STEP_SECONDS = 120.0  # in which pods have surely trained a step, on a machine that has other work


@dataclass(frozen=True)
class IndexedJob:
    """A rendered Indexed Job, and what a cluster would give its pods.

    Attributes:
        manifest: The Job.
        volumes: Folder of each claim.
        network: Network of its pods.
    """

    manifest: dict[str, Any]
    volumes: Mapping[str, Path]
    network: Network

    @property
    def name(self) -> str:
        """Name of the Job."""
        return self.manifest["metadata"]["name"]

    @property
    def spec(self) -> dict[str, Any]:
        """Specification of each pod."""
        return self.manifest["spec"]["template"]["spec"]

    @property
    def run(self) -> Path:
        """Run directory."""
        return self.volumes["distrain-runs"] / self.name

    def start(self, index: int, *more: str, **changed: str) -> Pod:
        """Start the pod of an index, as a kubelet does.

        Args:
            index: Completion index.
            more: Options that replace options of the manifest.
            changed: Variables that differ from the manifest.
        """
        for container in self.spec["initContainers"]:
            before = self._start(index, container)
            assert before.wait(BOUND) == 0, before.err()
            before.remove()
        return self._start(index, self.spec["containers"][0], more, changed)

    def _start(
        self, index: int, container: dict[str, Any], more: Sequence[str] = (), changed: Mapping[str, str] | None = None
    ) -> Pod:
        context = {**self.spec["securityContext"], **container["securityContext"]}
        assert (context["runAsUser"], context["runAsGroup"]) == (USER, USER)
        assert context["readOnlyRootFilesystem"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        # The image would run tini as process 1. Here the command itself is process 1, which is harder.
        assert "command" not in container
        labels = {"batch.kubernetes.io/controller-uid": f"uid of {self.name}"}  # the Job controller adds it
        env = {name: unescaped(value) for name, value in variables(container, labels).items()}
        return self.network.start(
            f"{self.name}-{index}",
            replaced([unescaped(text) for text in container["args"]], more),
            subdomain=self.spec["subdomain"],
            env={**IMAGE_ENV, **env, "JOB_COMPLETION_INDEX": str(index), **(changed or {})},
            mounts=[self._mount(mount) for mount in container["volumeMounts"]],
        )

    def _mount(self, mount: dict[str, Any]) -> Mount:
        (volume,) = (volume for volume in self.spec["volumes"] if volume["name"] == mount["name"])
        assert "subPath" not in mount
        claim = volume.get("persistentVolumeClaim")
        assert claim or "emptyDir" in volume
        source = self.volumes[claim["claimName"]] if claim else None
        return Mount(mount["mountPath"], source, read_only=mount.get("readOnly", False))

    def end(self, pods: Sequence[Pod], seconds: float) -> list[int]:
        """Wait for the end of pods, remove the pods, and return their exit codes."""
        deadline = time.monotonic() + seconds
        codes = [pod.wait(max(0.0, deadline - time.monotonic())) for pod in pods]
        for pod in pods:
            assert pod.processes() == {}
            pod.remove()
        return codes

    def await_step(self, step: int, pods: Sequence[Pod]) -> None:
        """Wait until running pods have trained a step."""

        def has_trained() -> bool:
            assert [pod.process.poll() for pod in pods] == [None] * len(pods), [pod.err() for pod in pods]
            return last_step(self.run) >= step

        wait_until(has_trained, STEP_SECONDS, lambda: str([pod.err() for pod in pods]))


def render_job(
    name: str,
    arguments: Sequence[str],
    volumes: Mapping[str, Path],
    network: Network,
    *,
    num_pods: int,
    ranks_per_pod: int = 1,
) -> IndexedJob:
    """Render a job on CPUs, and check that its Service gives the names which the pods look up."""
    script = str(REPOSITORY / "launch" / "k8s.sh")
    numbers = ["--pods", str(num_pods), "--gpus", "0", "--ranks", str(ranks_per_pod)]
    command = [script, "render", "--name", name, "--layout", "indexed", *numbers, "--data", "/data/text"]
    done = subprocess.run([*command, "--", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    documents = {document["kind"]: document for document in yaml.safe_load_all(done.stdout)}
    job, service = documents["Job"], documents["Service"]
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == num_pods
    assert service["metadata"]["name"] == job["spec"]["template"]["spec"]["subdomain"]
    assert service["spec"]["publishNotReadyAddresses"]
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    return IndexedJob(job, volumes, network)


def unescaped(text: str) -> str:
    """Return what Kubernetes makes of an argument or a variable without references: $$ becomes $."""
    assert "$(" not in text.replace("$$", "")
    return text.replace("$$", "$")
