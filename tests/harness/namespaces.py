"""Network namespaces for tests: machines within this one, each with its own network.

    if not missing({}):
        name = namespace("a")
        add(name)
        run("ip", "link", "add", "a", "type", "veth", "peer", "name", "eth0", "netns", name)
        add_address(name, "10.1.2.3/24")
        processes(name)
        remove(name)

They share file system and process numbers, unless more is unshared. Whatever a killed test leaves behind, the next one
removes: names carry the process number of the test. Needs root and iproute2; `missing()` says what is not there.
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
PLACE = Path("/run/netns")
NAMES = Path("/etc/netns")  # what `ip netns exec` puts over /etc


def missing(tools: Mapping[str, str]) -> str:
    """Why there can be no namespaces here; empty if there can.

    Args:
        tools: programs needed besides `ip` and `unshare`, and their Debian packages.
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
    """The full name of one of this process's namespaces."""
    return f"distrain-{os.getpid()}-{label}"


def add(name: str) -> None:
    """Make a namespace; it has a loopback device only."""
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "set", "lo", "up")


def add_address(name: str, address: str) -> None:
    """Give the cable of a namespace, its eth0, an address like 10.1.2.3/24, and plug it in."""
    run("ip", "-n", name, "address", "add", address, "dev", "eth0")
    run("ip", "-n", name, "link", "set", "eth0", "up")


def processes(name: str) -> dict[int, str]:
    """Process numbers and commands of all that runs there."""
    try:
        place = (PLACE / name).stat()
    except FileNotFoundError:
        return {}
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            own = (path / "ns" / "net").stat()
            if (own.st_dev, own.st_ino) == (place.st_dev, place.st_ino):
                command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if command:  # else a zombie
                    found[int(path.name)] = command
    return found


def remove(name: str) -> None:
    """Kill all that runs there, and remove the namespace; harmless where there is none."""
    while found := processes(name):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if (PLACE / name).exists():
        run("ip", "netns", "del", name)
    shutil.rmtree(NAMES / name, ignore_errors=True)


def stale() -> list[str]:
    """Namespaces that killed tests have left behind."""
    made = [re.fullmatch(r"distrain-(\d+)-.+", path.name) for path in PLACE.glob("distrain-*-*")]
    return [name[0] for name in made if name and not Path("/proc", name[1]).exists()]


def run(*command: str) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": PATH})
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
