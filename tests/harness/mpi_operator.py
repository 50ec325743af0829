"""The part of mpi-operator: starts the pods of an MPIJob with the files and variables that the operator would give.

    job = Job(manifest, folder, claims={"distrain-data": data, "distrain-runs": runs})
    worker = job.start_worker(network, 0)
    launcher = job.start_launcher(network, ["--epochs", "3"])

Names, environment, hostfile, keys and mounts follow mpi-operator 0.8, pkg/controller/mpi_job_controller.go.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from manifests import replaced, variables
from pod_root import Mount
from pods import IMAGE_ENV, Network, Pod

REPOSITORY = Path(__file__).resolve().parents[2]
NAMESPACE = "default"
_OPEN_MPI = {
    "K_MPI_JOB_ROLE": "launcher",
    "OMPI_MCA_orte_keep_fqdn_hostnames": "true",
    "OMPI_MCA_orte_default_hostfile": "/etc/mpi/hostfile",
    "OMPI_MCA_plm_rsh_args": "-o ConnectionAttempts=10",
    "NVIDIA_VISIBLE_DEVICES": "",
    "NVIDIA_DRIVER_CAPABILITIES": "",
}


class Job:
    """An MPIJob, and the files that its pods mount.

    Args:
        manifest: The MPIJob.
        folder: Folder for these files.
        claims: Folder of each PersistentVolumeClaim.
    """

    def __init__(self, manifest: dict[str, Any], folder: Path, claims: Mapping[str, Path]) -> None:
        self.name: str = manifest["metadata"]["name"]
        self.num_workers: int = manifest["spec"]["mpiReplicaSpecs"]["Worker"]["replicas"]
        self._spec = manifest["spec"]
        self._folder = folder
        self._claims = claims
        self.write_hostfile(self.num_workers)
        self.write_keys()
        _write_ssh_settings(folder / "ssh-settings")

    def worker_name(self, index: int) -> str:
        """Return the host name of a worker."""
        return f"{self.name}-worker-{index}.{self.name}.{NAMESPACE}.svc"

    def write_hostfile(self, num_workers: int) -> None:
        """Write the hostfile of the ConfigMap NAME-config."""
        slots = self._spec["slotsPerWorker"]
        (self._folder / "config").mkdir(exist_ok=True)
        lines = [f"{self.worker_name(index)} slots={slots}\n" for index in range(num_workers)]
        (self._folder / "config" / "hostfile").write_text("".join(lines))

    def write_keys(self) -> None:
        """Write a new key as the secret NAME-ssh, for pods that start later; all users may read the files."""
        self._keys = keys = Path(tempfile.mkdtemp(prefix="ssh-", dir=self._folder))
        kind = ["-t", "ecdsa", "-b", "521", "-m", "PEM", "-N", "", "-C", ""]
        subprocess.run(["ssh-keygen", "-q", *kind, "-f", str(keys / "id_rsa")], check=True)
        shutil.copy(keys / "id_rsa.pub", keys / "authorized_keys")
        for file in keys.iterdir():
            file.chmod(0o644)
        keys.chmod(0o1777)

    def start_worker(self, network: Network, index: int) -> Pod:
        """Start the pod of a worker."""
        return self._start(network, f"{self.name}-worker-{index}", "Worker", {"K_MPI_JOB_ROLE": "worker"}, [], [])

    def start_launcher(self, network: Network, arguments: Sequence[str], env: Mapping[str, str] | None = None) -> Pod:
        """Start the pod of the launcher, with options that replace options of the manifest."""
        environ = {**_OPEN_MPI, "OMPI_MCA_orte_set_default_slots": str(self._spec["slotsPerWorker"]), **(env or {})}
        hostfile = Mount("/etc/mpi", self._folder / "config", read_only=True)
        return self._start(network, f"{self.name}-launcher", "Launcher", environ, [hostfile], arguments)

    def liveness_probe(self) -> list[str]:
        """Return the command that the kubelet runs in the launcher."""
        (container,) = self._spec["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]["containers"]
        return container["livenessProbe"]["exec"]["command"]

    def _start(
        self,
        network: Network,
        name: str,
        role: str,
        env: Mapping[str, str],
        mounts: Sequence[Mount],
        arguments: Sequence[str],
    ) -> Pod:
        pod = self._spec["mpiReplicaSpecs"][role]["template"]["spec"]
        (container,) = pod["containers"]
        assert "command" not in container
        # The launcher is a pod of a Job, whose controller adds the label; the operator makes the workers itself.
        labels = {"batch.kubernetes.io/controller-uid": f"uid of {self.name}"} if role == "Launcher" else {}
        settings = Mount("/etc/ssh", self._folder / "ssh-settings", read_only=True)  # of the image
        keys = Mount(self._spec["sshAuthMountPath"], self._keys, read_only=True)
        return network.start(
            name,
            [*entrypoint(), *replaced(container["args"], arguments)],
            subdomain=self.name,
            kubernetes_namespace=NAMESPACE,
            env={**IMAGE_ENV, **variables(container, labels), **env},
            mounts=[*_mounts(pod, container, self._claims), settings, keys, *mounts],
        )


def entrypoint() -> list[str]:
    """Return the entry point of the image, which precedes a container's arguments."""
    lines = (REPOSITORY / "k8s" / "Dockerfile").read_text()
    return json.loads(re.findall(r"^ENTRYPOINT (.*)$", lines, re.MULTILINE)[-1])


def _mounts(pod: Mapping[str, Any], container: Mapping[str, Any], claims: Mapping[str, Path]) -> list[Mount]:
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    found = []
    for mount in container["volumeMounts"]:
        claim = volumes[mount["name"]].get("persistentVolumeClaim")
        folder = claims[claim["claimName"]] if claim else None
        found.append(Mount(mount["mountPath"], folder, read_only=mount.get("readOnly", False)))
    return found


def _write_ssh_settings(folder: Path) -> None:
    """Write Debian's settings of ssh and the files that the image adds."""
    (folder / "ssh_config.d").mkdir(parents=True)
    shutil.copy("/etc/ssh/ssh_config", folder)
    shutil.copy(REPOSITORY / "k8s" / "mpi" / "sshd_config", folder)
    shutil.copy(REPOSITORY / "k8s" / "mpi" / "ssh_config", folder / "ssh_config.d" / "distrain.conf")


def own_by_pods(folder: Path) -> None:
    """Make uid 1000 the owner of a volume, as fsGroup does."""
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, 1000, 1000)
