"""Pods without Kubernetes: containers made of Linux namespaces, on one network, which find each other by name.

    with pod_network(folder) as network:
        pod = network.start("train-0", ["python", "-m", "distrain.pod"], subdomain="train", env={**IMAGE_ENV, "A": "b"},
                            mounts=[Mount("/tmp"), Mount("/data", data, read_only=True)])
        pod.signal(signal.SIGTERM)              # as a kubelet does before it ends a pod
        assert pod.wait(60) == 42, pod.err()
        pod.remove()

A pod has its own network, host name, process ids, mounts and root. Its address is new for every pod. Its command is
process 1, which has no default actions for signals. Commands run as uid and gid 1000 without capabilities.

The root is read-only. Like the image, it holds the programs of this machine, this Python, its environment at /opt/venv,
the scripts at /opt/distrain/launch, and the home of mpiuser.

From its start until `remove` other pods find a pod by HOST.SUBDOMAIN.NAMESPACE.svc.cluster.local, and by this name
without its last parts. A headless Service with publishNotReadyAddresses does the same. Unknown names do not resolve.

The caller does what Kubernetes would do: restarts, grace periods, limits. `missing()` names absent requirements, such
as root, iproute2 and util-linux.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import namespaces
from pod_root import AS_USER, ISOLATED, Mount, root_script, write_etc

from distrain.launchers.processes import handles

IMAGE_ENV = {"PATH": "/opt/venv/bin:/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp"}  # as k8s/Dockerfile has it
_SUBNET = "10.253.78"


def missing() -> str:
    """Return why this machine cannot make pods; empty if it can."""
    reason = namespaces.missing({"setpriv": "util-linux", "nsenter": "util-linux", "mount": "mount"})
    trial = ["unshare", *ISOLATED, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    if not reason and subprocess.run(trial, capture_output=True, check=False).returncode:
        return "this root may not mount in a namespace of its own (a container without CAP_SYS_ADMIN)"
    return reason


@dataclass
class Pod:
    """A started pod.

    Attributes:
        name: Host name.
        names: DNS names by which other pods find it.
        address: IPv4 address of its eth0.
        namespace: Network namespace.
        process: Process of this machine that ends when the command ends.
        folder: Folder of this machine with its output and its /etc.
    """

    name: str
    names: list[str]
    address: str
    namespace: str
    process: subprocess.Popen[bytes]
    folder: Path
    _network: Network

    def signal(self, number: int) -> None:
        """Send a signal to the command, which is process 1 of the pod, from outside as a kubelet does."""
        if pid := self.first():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def listens(self, number: int) -> bool:
        """Return whether the command has a handler for a signal."""
        return handles(self.first(), signal.Signals(number))

    def kill(self) -> None:
        """End all processes of the pod at once."""
        self.signal(signal.SIGKILL)

    def wait(self, seconds: float) -> int:
        """Return the exit code of the command; 128 + a signal that killed it, but 1 for SIGKILL, as unshare(1) does."""
        code = self.process.wait(seconds)
        return code if code >= 0 else 128 - code

    def run(self, command: Sequence[str], *, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run another command in the pod, as `kubectl exec` and probes do."""
        enter = ["nsenter", "--all", "--target", str(self.first()), "--root", "--wd=/"]
        given = Path(f"/proc/{self.first()}/environ").read_text().split("\0")
        env = dict(line.split("=", 1) for line in given if line)
        return subprocess.run(
            [*enter, *AS_USER, *command], env=env, capture_output=True, text=True, timeout=seconds, check=False
        )

    def out(self) -> str:
        """Return the standard output so far."""
        return (self.folder / "out").read_text()

    def err(self) -> str:
        """Return the standard error so far."""
        return (self.folder / "err").read_text()

    def processes(self) -> dict[int, str]:
        """Return the command of each process, by its process id on this machine."""
        return {pid: line for pid, line in namespaces.processes(self.namespace).items() if pid != self.process.pid}

    def remove(self) -> None:
        """Kill all processes, and remove the network and the names of the pod."""
        self._network.forget(self)
        namespaces.remove(self.namespace)
        self.process.wait()

    def first(self) -> int:
        """Return the process id of the command on this machine; 0 after its end."""
        with contextlib.suppress(OSError, ValueError):
            return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text())
        return 0


class Network:
    """Pods on one bridge.

    Args:
        folder: Folder for the output of pods and for their /etc.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(2)
        self._switch = namespaces.namespace("switch")
        self.pods: list[Pod] = []
        namespaces.add(self._switch)
        namespaces.run("ip", "-n", self._switch, "link", "add", "bridge", "type", "bridge")
        namespaces.run("ip", "-n", self._switch, "link", "set", "bridge", "up")

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        subdomain: str = "",
        kubernetes_namespace: str = "default",
        env: Mapping[str, str] = IMAGE_ENV,
        mounts: Sequence[Mount] = (),
        working_dir: str = "/tmp",
    ) -> Pod:
        """Start a pod.

        Args:
            name: Host name.
            command: Program and arguments of process 1.
            subdomain: Name of the headless Service.
            kubernetes_namespace: Part of the pod's names.
            env: Whole environment.
            mounts: Volumes.
            working_dir: Working directory of the command.
        """
        number = next(self._numbers)
        namespace, address = namespaces.namespace(f"pod{number}"), f"{_SUBNET}.{number}"
        names = [name]
        if subdomain:
            area = f".{kubernetes_namespace}.svc"
            names = [f"{name}.{subdomain}{more}" for more in (f"{area}.cluster.local", area, "")]
        own = self._folder / f"{name}-{number}"
        (own / "root").mkdir(parents=True)
        write_etc(own / "etc")
        namespaces.add(namespace)
        self._plug_in(namespace, f"pod{number}", address)
        isolated = ["nsenter", f"--net={namespaces.NETNS / namespace}", "unshare", *ISOLATED]
        script = root_script(name, own, mounts)
        with (own / "out").open("wb") as out, (own / "err").open("wb") as err:
            process = subprocess.Popen(
                [*isolated, "/bin/sh", "-ec", script, working_dir, *command],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        pod = Pod(name, names, address, namespace, process, own, self)
        self.pods.append(pod)
        self._publish()
        while not pod.first() and process.poll() is None:
            time.sleep(0.01)
        return pod

    def forget(self, pod: Pod) -> None:
        """Remove the names of a pod."""
        self.pods.remove(pod)
        self._publish()

    def remove(self) -> None:
        """Remove all pods and the bridge."""
        for pod in [*self.pods]:
            pod.remove()
        namespaces.remove(self._switch)

    def _plug_in(self, namespace: str, cable: str, address: str) -> None:
        ends = ["name", "eth0", "netns", namespace], ["name", cable, "netns", self._switch]
        namespaces.run("ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        namespaces.run("ip", "-n", self._switch, "link", "set", cable, "master", "bridge", "up")
        namespaces.add_address(namespace, f"{address}/24")

    def _publish(self) -> None:
        """Write the names of all pods for each pod; a rename replaces the whole list at once."""
        known = [f"{pod.address} {' '.join(pod.names)}" for pod in self.pods]
        for pod in self.pods:
            new = pod.folder / "etc" / "hosts.new"
            new.write_text("\n".join(["127.0.0.1 localhost", *known, f"{pod.address} {pod.name}", ""]))
            new.rename(new.with_name("hosts"))


@contextlib.contextmanager
def pod_network(folder: Path) -> Iterator[Network]:
    """Make a network without pods, and remove it with all pods at the end.

    Args:
        folder: Folder for the output of pods and for their /etc.
    """
    for name in namespaces.stale():
        namespaces.remove(name)
    network = Network(folder)
    try:
        yield network
    finally:
        network.remove()
