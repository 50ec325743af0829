"""Programs that connect to each listening socket of a job without belonging to the job.

with Strangers(job.processes()) as strangers:
    job.process.terminate()
    assert strangers.addresses
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pickle
import re
import secrets
import socket
import sys
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

SECONDS = 1.0  # for one stranger's connection and bytes
LISTEN = "0A"


class Address(NamedTuple):
    """Where a process listens."""

    host: str
    port: int


class RunsCode:
    """Makes a folder when somebody unpickles it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._path),)


class Strangers:
    """Connections to all listening sockets of some processes, held open inside the context.

    Each socket gets an idle connection, one byte, random bytes, 10 MB and a pickle that would make a folder.

    Args:
        pids: the processes.
        evidence: folder that the pickle makes where it is loaded.

    Attributes:
        addresses: where the processes listen.
    """

    def __init__(self, pids: Collection[int], evidence: Path) -> None:
        self.addresses = listening(pids)
        self._payloads = [b"", b"x", secrets.token_bytes(1000), bytes(10_000_000), pickle.dumps(RunsCode(evidence))]
        self._connections: list[socket.socket] = []

    def __enter__(self) -> Strangers:
        for address in self.addresses:
            for payload in self._payloads:
                self._connections.append(connection := socket.socket(_family(address.host)))
                connection.settimeout(SECONDS)
                with contextlib.suppress(OSError):  # the socket has closed, or reads no further
                    connection.connect((_loopback(address.host), address.port))
                    connection.sendall(payload)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for connection in self._connections:
            connection.close()


def listening(pids: Collection[int]) -> set[Address]:
    """Return where processes listen by TCP."""
    inodes = {inode for pid in pids for inode in _sockets(pid)}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN and fields[9] in inodes:
                digits, _, port = fields[1].partition(":")
                words = [digits[i : i + 8] for i in range(0, len(digits), 8)]
                packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
                found.add(Address(str(ipaddress.ip_address(packed)), int(port, 16)))
    return found


def is_reachable(host: str, port: int) -> bool:
    """Return whether a connection to an address succeeds."""
    try:
        socket.create_connection((host, port), timeout=SECONDS).close()
    except OSError:
        return False
    return True


def _sockets(pid: int) -> set[str]:
    found = set()
    for path in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            if match := re.fullmatch(r"socket:\[(\d+)\]", str(path.readlink())):
                found.add(match[1])
    return found


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _loopback(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
