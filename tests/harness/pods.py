"""Pods without Kubernetes: each a container of its own, made of Linux namespaces, on one network with names.

    with pod_network(folder) as network:
        pod = network.start("train-0", ["python", "-m", "distrain.pod"], subdomain="train", env={**IMAGE_ENV, "A": "b"},
                            mounts=[Mount("/tmp"), Mount("/data", data, read_only=True)])
        pod.signal(signal.SIGTERM)              # as a kubelet does before it ends a pod
        assert pod.wait(60) == 42, pod.err()
        pod.remove()

A pod has its own network (an address that no pod had before), host name, process numbers (its command is number 1 and
so has no default actions for signals), mounts and root. The root is read-only and holds what the image would: this
machine's programs, this Python, its environment at /opt/venv, launch scripts at /opt/distrain/launch, home of mpiuser.
Commands run as uid and gid 1000 without any capability. From its start until `remove` a pod is found by its names, as
with a headless Service that publishes addresses of pods that are not ready: HOST.SUBDOMAIN.NAMESPACE.svc.cluster.local,
and without its last parts; unknown names do not exist. What Kubernetes itself does is the caller's: restarts, grace
period, limits.

Needs root, iproute2 and util-linux; `missing()` says what is not there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import namespaces

import distrain

IMAGE_ENV = {"PATH": "/opt/venv/bin:/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp"}  # as k8s/Dockerfile has it
USER = 1000
AS_USER = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", "--no-new-privs"]
AS_USER += ["--inh-caps=-all", "--bounding-set=-all", "--"]
_ISOLATED = ["--uts", "--ipc", "--mount", "--pid", "--fork"]
_SUBNET = "10.253.78"
_REPOSITORY = Path(__file__).resolve().parents[2]
_ETC = {
    "passwd": f"root:x:0:0::/:/usr/sbin/nologin\nmpiuser:x:{USER}:{USER}::/home/mpiuser:/bin/sh\n",
    "group": f"root:x:0:\nmpiuser:x:{USER}:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


def missing() -> str:
    """Why there can be no pods here; empty if there can."""
    reason = namespaces.missing({"setpriv": "util-linux", "nsenter": "util-linux", "mount": "mount"})
    trial = ["unshare", *_ISOLATED, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    if not reason and subprocess.run(trial, capture_output=True, check=False).returncode:
        return "this root may not mount in a namespace of its own (a container without CAP_SYS_ADMIN)"
    return reason


@dataclass(frozen=True)
class Mount:
    """A volume in a pod.

    Attributes:
        path: where it is in the pod.
        source: a folder of this machine; None: an empty folder in memory of its own, an emptyDir.
        read_only: whether the pod may only read.
    """

    path: str
    source: Path | None = None
    read_only: bool = False


@dataclass
class Pod:
    """One that was started.

    Attributes:
        name: its host name.
        names: what other pods find it by.
        address: of its eth0.
        namespace: of its network.
        process: what ends as its command does.
        folder: what belongs to it on this machine.
    """

    name: str
    names: list[str]
    address: str
    namespace: str
    process: subprocess.Popen[bytes]
    folder: Path
    _network: Network

    def signal(self, number: int) -> None:
        """Send a signal to the command, process number 1 of the pod; from outside, as a kubelet does."""
        if pid := self.first():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def listens(self, number: int) -> bool:
        """Whether the command has a handler for a signal."""
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{self.first()}/status").read_text()
            return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)
        return False

    def kill(self) -> None:
        """End all processes of the pod at once."""
        self.signal(signal.SIGKILL)

    def wait(self, seconds: float) -> int:
        """The exit code of the command; 128 + the signal that killed it, but 1 for SIGKILL, as unshare(1) has it."""
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
        """What it has written to standard output so far."""
        return (self.folder / "out").read_text()

    def err(self) -> str:
        """What it has written to standard error so far."""
        return (self.folder / "err").read_text()

    def processes(self) -> dict[int, str]:
        """Numbers (of this machine) and commands of all its processes."""
        return {pid: line for pid, line in namespaces.processes(self.namespace).items() if pid != self.process.pid}

    def remove(self) -> None:
        """Kill what runs, and take away its network and names."""
        self._network.forget(self)
        namespaces.remove(self.namespace)
        self.process.wait()

    def first(self) -> int:
        """Number of the command's process on this machine; 0 where it has ended."""
        with contextlib.suppress(OSError, ValueError):
            return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text())
        return 0


class Network:
    """Pods on one bridge.

    Args:
        folder: see `pod_network`.
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
        area: str = "default",
        env: Mapping[str, str] = IMAGE_ENV,
        mounts: Sequence[Mount] = (),
        working_dir: str = "/tmp",
    ) -> Pod:
        """Start a pod.

        Args:
            name: its host name.
            command: with arguments; becomes process number 1.
            subdomain: name of the headless Service.
            area: the Kubernetes namespace, part of its names.
            env: all of its environment.
            mounts: its volumes.
            working_dir: where the command starts.
        """
        number = next(self._numbers)
        namespace, address = namespaces.namespace(f"pod{number}"), f"{_SUBNET}.{number}"
        names = [name]
        if subdomain:
            names = [f"{name}.{subdomain}{more}" for more in (f".{area}.svc.cluster.local", f".{area}.svc", "")]
        place = self._folder / f"{name}-{number}"
        (place / "root").mkdir(parents=True)
        _write_etc(place / "etc")
        namespaces.add(namespace)
        self._plug_in(namespace, f"pod{number}", address)
        isolated = ["nsenter", f"--net={namespaces.PLACE / namespace}", "unshare", *_ISOLATED]
        script = _script(name, place, mounts)
        with (place / "out").open("wb") as out, (place / "err").open("wb") as err:
            process = subprocess.Popen(
                [*isolated, "/bin/sh", "-ec", script, working_dir, *command],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        pod = Pod(name, names, address, namespace, process, place, self)
        self.pods.append(pod)
        self._publish()
        while not pod.first() and process.poll() is None:
            time.sleep(0.01)
        return pod

    def forget(self, pod: Pod) -> None:
        """Take away the names of a pod."""
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
        """Tell each pod the names of all, at once: a lookup sees the one list or the other."""
        known = [f"{pod.address} {' '.join(pod.names)}" for pod in self.pods]
        for pod in self.pods:
            new = pod.folder / "etc" / "hosts.new"
            new.write_text("\n".join(["127.0.0.1 localhost", *known, f"{pod.address} {pod.name}", ""]))
            new.rename(new.with_name("hosts"))


@contextlib.contextmanager
def pod_network(folder: Path) -> Iterator[Network]:
    """A network without pods; it is removed in the end, with all pods.

    Args:
        folder: for what pods write to standard output and error, and for their /etc.
    """
    for name in namespaces.stale():
        namespaces.remove(name)
    network = Network(folder)
    try:
        yield network
    finally:
        network.remove()


def _write_etc(etc: Path) -> None:
    etc.mkdir()
    for name, content in _ETC.items():
        (etc / name).write_text(content)
    shutil.copy("/etc/ld.so.cache", etc)


def _script(name: str, place: Path, mounts: Sequence[Mount]) -> str:
    """Makes the root of a pod and runs a command there: $0 is the working directory, $@ the command."""
    root = place / "root"
    lines = [f"echo {shlex.quote(name)} >/proc/sys/kernel/hostname", f"cd {shlex.quote(str(root))}"]
    lines += ["mount -t tmpfs -o mode=755 tmpfs .", f"cd {shlex.quote(str(root))}"]
    for path in sorted(Path("/").iterdir()):
        if path.name in ("usr", "bin", "sbin") or path.name.startswith("lib"):
            if path.is_symlink():
                lines += [f"ln -s {path.readlink()} {path.name}"]
            elif path.is_dir():
                lines += _mount(Mount(str(path), path, read_only=True))
    lines += _mount(Mount("/etc", place / "etc"))
    lines += ["mkdir -m 755 proc sys dev tmp", "mkdir -p -m 755 home/mpiuser", f"chown {USER}:{USER} home/mpiuser"]
    lines += ["mount -t proc proc proc", "mount -t sysfs -o ro sysfs sys", "mount -t tmpfs -o mode=755 tmpfs dev"]
    for device in ("null", "zero", "full", "random", "urandom"):
        lines += [f"touch dev/{device}", f"mount --bind /dev/{device} dev/{device}"]
    lines += ["ln -s /proc/self/fd dev/fd", "mkdir dev/shm", "mount -t tmpfs -o mode=1777,size=64m tmpfs dev/shm"]
    for mount in [*mounts, *_image()]:  # in this order, as the checkout may stand below /tmp
        lines += _mount(mount)
    lines += ["mount -o remount,bind,ro etc", "mount -o remount,bind,ro ."]
    lines += [f'exec /usr/sbin/chroot . {shlex.join(AS_USER)} /bin/sh -c \'cd "$0" && exec "$@"\' "$0" "$@"']
    return "\n".join(lines)


def _image() -> list[Mount]:
    """What the image would hold, besides Debian: Python where it was built, its environment, distrain."""
    package = Path(distrain.__file__).parent
    prefix = Path(sys.prefix)
    mounts = [Mount(sys.base_prefix, Path(sys.base_prefix)), Mount("/opt/venv", prefix), Mount(str(prefix), prefix)]
    if prefix not in package.parents:  # as it is being worked on, not installed
        mounts += [Mount(str(package), package)]
    mounts += [Mount("/opt/distrain/launch", _REPOSITORY / "launch")]
    return [dataclasses.replace(mount, read_only=True) for mount in mounts]


def _mount(mount: Mount) -> list[str]:
    """Shell lines that mount something below the working directory."""
    path = shlex.quote("." + mount.path)
    if mount.source is None:
        return [f"mkdir -p {path}", f"mount -t tmpfs -o mode=1777 tmpfs {path}"]
    source = shlex.quote(str(mount.source))
    lines = [f"mkdir -p {path}", f"mount --bind {source} {path}"]
    return [*lines, f"mount -o remount,bind,ro {path}"] if mount.read_only else lines
