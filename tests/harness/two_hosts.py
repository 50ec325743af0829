"""Two hosts on one machine: network namespaces with a cable between them, each with a name, an address and an sshd.

    with two_hosts(folder) as (here, there):
        here.start(["hostname"])                 # a process on the first host
        there.cut()                              # disconnects the cable
        there.processes()                        # all processes but sshd

The hosts share the file system and process ids. At the end all their processes are killed, and the hosts removed.
`missing()` names absent requirements, such as root, iproute2 and openssh-server.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import namespaces

SSHD_FOLDER = Path("/run/sshd")  # sshd refuses to run as root without this folder


def missing() -> str:
    """Return why this machine cannot make two hosts; empty if it can."""
    return namespaces.missing({"sshd": "openssh-server", "ssh": "openssh-client"})


@dataclass(frozen=True)
class Host:
    """One of two hosts.

    Attributes:
        name: Name of the host and of its namespace.
        other: Name of the other host.
        ssh: Command by which each host reaches the other.
        sshd: Process id of its sshd.
    """

    name: str
    other: str
    ssh: str
    sshd: int

    def start(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> subprocess.Popen[str]:
        """Start a command on this host."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*_on(self.name), *command], env=env, cwd=cwd, text=True, **pipes)

    def cut(self) -> None:
        """Disconnect the cable."""
        namespaces.run("ip", "-n", self.name, "link", "set", "eth0", "down")

    def mend(self) -> None:
        """Connect the cable again, and wait until the hosts reach each other."""
        namespaces.run("ip", "-n", self.name, "link", "set", "eth0", "up")
        _reach(self)

    def processes(self) -> dict[int, str]:
        """Return the command of each process of the host, by process id; sshd itself is left out."""
        return {pid: command for pid, command in namespaces.processes(self.name).items() if pid != self.sshd}


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """Make two hosts, and remove them at the end.

    Args:
        folder: Private folder for keys and logs of sshd.
    """
    for name in namespaces.stale():
        _remove(name)
    names = [namespaces.namespace(letter) for letter in "ab"]
    servers: list[subprocess.Popen[bytes]] = []
    try:
        _connect(names)
        ssh = _make_keys(folder, names)
        SSHD_FOLDER.mkdir(exist_ok=True)
        sshd = str(shutil.which("sshd", path=namespaces.PATH))
        for name in names:
            command = [*_on(name), sshd, "-D", "-e", "-f", str(folder / "sshd_config")]
            with (folder / name).open("wb") as log:
                servers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log))
        here, there = (
            Host(name, other, ssh, server.pid)
            for name, other, server in zip(names, reversed(names), servers, strict=True)
        )
        for host in (here, there):
            _reach(host)
        yield here, there
    finally:
        for name in names:
            _remove(name)
        for server in servers:
            server.wait()


def _connect(names: Sequence[str]) -> None:
    """Make two namespaces with addresses and a cable, which know each other by name."""
    addresses = ["10.253.77.1", "10.253.77.2"]
    for name in names:
        namespaces.add(name)
        hosts = "".join(f"{address} {host}\n" for address, host in zip(addresses, names, strict=True))
        (namespaces.NETNS_ETC / name).mkdir(parents=True, exist_ok=True)
        (namespaces.NETNS_ETC / name / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
    ends = [("netns", name, "name", "eth0") for name in names]
    namespaces.run("ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1])
    for name, address in zip(names, addresses, strict=True):
        namespaces.add_address(name, f"{address}/24")


def _make_keys(folder: Path, names: Sequence[str]) -> str:
    """Make keys for the hosts and their user, and return the ssh command that uses these keys."""
    for key in ("host", "user"):
        namespaces.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key))
    kind, public = (folder / "host.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text(f"{','.join(names)} {kind} {public}\n")
    settings = {
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "user.pub",
        "PidFile": "none",
        "PasswordAuthentication": "no",
        "StrictModes": "no",  # the folder of a test is below /tmp
        "UsePAM": "no",
    }
    (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    return f"ssh -F none -i {folder / 'user'} -o BatchMode=yes -o UserKnownHostsFile={folder / 'known_hosts'}"


def _reach(host: Host) -> None:
    """Log in to the other host; its answer proves both directions."""
    namespaces.run(*_on(host.name), *host.ssh.split(), "-o", "ConnectionAttempts=20", host.other, "true")


def _on(name: str) -> list[str]:
    """Return the words that run the command after them in a namespace, whose name becomes the host name."""
    named = 'echo "$0" >/proc/sys/kernel/hostname && exec "$@"'
    return ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", named, name]


def _remove(name: str) -> None:
    namespaces.remove(name)
    shutil.rmtree(
        Path(tempfile.gettempdir(), f"ompi.{name}.0"), ignore_errors=True
    )  # a killed mpirun leaves this folder
