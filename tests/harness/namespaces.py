"""Network namespaces for tests: machines within this one, each with its own network.

    if not missing({}):
        name = namespace("a")
        add(name)
        run("ip", "link", "add", "a", "type", "veth", "peer", "name", "eth0", "netns", name)
        add_address(name, "10.1.2.3/24")
        processes(name)
        remove(name)

The machines share the file system and process ids, unless the caller unshares more. Names carry the process id of the
test, so that the next test removes the namespaces of a killed test. The function `missing` names absent requirements,
such as root and iproute2.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
NETNS = Path("/run/netns")
NETNS_ETC = Path("/etc/netns")  # `ip netns exec` mounts the files of a namespace over /etc


def missing(tools: Mapping[str, str]) -> str:
    """Return why this machine cannot make namespaces; empty if it can.

    Args:
        tools: Debian package of each program that the caller needs besides `ip` and `unshare`.
    """
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool, package in {"ip": "iproute2", "unshare": "util-linux", **tools}.items():
        if shutil.which(tool, path=PATH) is None:
            return f"{tool} is not installed: apt-get install {package}"
    trial = namespace("trial")
    if subprocess.run(["ip", "netns", "add", trial], capture_output=True, check=False).returncode:
        return "this root may not make network namespaces (a container without CAP_SYS_ADMIN)"
    run("ip", "netns", "del", trial)
    return ""


def namespace(label: str) -> str:
    """Return the full name of a namespace of this process."""
    return f"distrain-{os.getpid()}-{label}"


def add(name: str) -> None:
    """Make a namespace with only a loopback device."""
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "set", "lo", "up")


def add_address(name: str, address: str) -> None:
    """Give eth0 of a namespace an address like 10.1.2.3/24, and enable the device."""
    run("ip", "-n", name, "address", "add", address, "dev", "eth0")
    run("ip", "-n", name, "link", "set", "eth0", "up")


def processes(name: str) -> dict[int, str]:
    """Return the command of each process in a namespace, by process id."""
    try:
        namespace_file = (NETNS / name).stat()
    except FileNotFoundError:
        return {}
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            own = (path / "ns" / "net").stat()
            if (own.st_dev, own.st_ino) == (namespace_file.st_dev, namespace_file.st_ino):
                command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if command:  # else a zombie
                    found[int(path.name)] = command
    return found


def remove(name: str) -> None:
    """Kill all processes of a namespace, and remove the namespace if it exists."""
    while found := processes(name):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if (NETNS / name).exists():
        run("ip", "netns", "del", name)
    shutil.rmtree(NETNS_ETC / name, ignore_errors=True)


def stale() -> list[str]:
    """Return the namespaces that killed tests have left behind."""
    made = [re.fullmatch(r"distrain-(\d+)-.+", path.name) for path in NETNS.glob("distrain-*-*")]
    return [name[0] for name in made if name and not Path("/proc", name[1]).exists()]


def run(*command: str) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": PATH})
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
