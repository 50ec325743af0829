"""Keeps the connections of strangers from holding up mpirun and orted, which listen on all interfaces.

Decides: which connection of a launcher belongs to nobody in the job. Never: who listens, or for how long a job runs.

    bind_to_loopback(mpirun.pid)                 # one host: no other machine can connect
    evict = StrangerEviction(mpirun.pid)
    for _ in polls([mpirun]):
        evict()                                  # shuts down a connection for which mpirun has waited too long

Open MPI 4.1 reads the first bytes of a connection in a blocking call. A stranger who connects and sends too little thus
stops mpirun: no signal, no output and no exit of a rank passes any more. The peers of a job send these bytes at once.
This module needs Linux 5.7, and the right to trace a child process. Elsewhere it does nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from distrain.launchers.processes import read_proc

HANDSHAKE_SECONDS = 2.0  # ranks and daemons send their first bytes at once, even on a busy machine

_PIDFD_GETFD = 438  # system call of Linux 5.6; Python has no function for it
_RECVFROM = {"x86_64": b"45", "aarch64": b"207"}.get(platform.machine())
_LISTEN = b"0A"  # state in /proc/net/tcp, proc(5)


def bind_to_loopback(pid: int) -> None:
    """Bind the sockets on which a process listens to the loopback interface, so that no other machine connects."""
    for table in ("tcp", "tcp6"):
        rows = [line.split() for line in read_proc(pid, f"net/{table}").splitlines()[1:]]
        listening = {row[9] for row in rows if row[3] == _LISTEN}
        for descriptor, inode in _sockets(pid):
            if inode in listening:
                _on_copy(pid, descriptor, lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo"))


class StrangerEviction:
    """Shuts down a connection whose first bytes a process awaits for longer than `HANDSHAKE_SECONDS`.

    Args:
        pid: the process, a child of this process.
        clock: returns seconds.
    """

    def __init__(self, pid: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._pid = pid
        self._clock = clock
        self._since: dict[int, float] = {}  # descriptor -> when a thread was first seen waiting for it

    def __call__(self) -> None:
        """Look once; call this several times a second."""
        now = self._clock()
        self._since = {descriptor: self._since.get(descriptor, now) for descriptor in _awaited(self._pid)}
        for descriptor, since in self._since.items():
            if now - since > HANDSHAKE_SECONDS:
                _on_copy(self._pid, descriptor, lambda connection: connection.shutdown(socket.SHUT_RDWR))


def _awaited(pid: int) -> Iterator[int]:
    """Yield the descriptors for whose bytes a thread of a process waits in a blocking call."""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        call = read_proc(pid, f"task/{task.name}/syscall").split()  # number and arguments, in hexadecimal
        if len(call) > 1 and call[0] == _RECVFROM:
            yield int(call[1], 16)


def _sockets(pid: int) -> Iterator[tuple[int, bytes]]:
    """Yield descriptor and inode of each socket of a process."""
    for path in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):  # closed meanwhile
            if found := re.fullmatch(r"socket:\[(\d+)\]", str(path.readlink())):
                yield int(path.name), found[1].encode()


def _on_copy(pid: int, descriptor: int, change: Callable[[socket.socket], object]) -> None:
    """Call `change` with a copy of a socket of another process; do nothing where the system refuses that."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        process = os.pidfd_open(pid)
        stack.callback(os.close, process)
        copy = ctypes.CDLL(None).syscall(_PIDFD_GETFD, process, descriptor, 0)
        if copy >= 0:
            change(stack.enter_context(socket.socket(fileno=copy)))
