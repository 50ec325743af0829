"""Processes of this machine as /proc shows them: children, ranks of mpirun, sessions, handled signals.

Decides: which process is a rank of mpirun, and which session member is alive. Never: starts a process, or waits for
one that the caller started.

    >>> import os, signal
    >>> handles(os.getpid(), signal.SIGINT)
    True
    >>> os.getpid() in session_members(os.getsid(0)), list(mpi_ranks(os.getpid()))
    (True, [])

Every process may end between two reads; an unreadable file counts as empty.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Collection, Iterator
from pathlib import Path


def read_proc(pid: int, name: str) -> bytes:
    """Read /proc/PID/NAME; empty when the process has ended or may not be read, as sshd."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def children(pid: int) -> Iterator[int]:
    """Yield the children of all threads of a process."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            yield from map(int, path.read_text().split())


def mpi_ranks(pid: int) -> Iterator[int]:
    """Yield the topmost descendants that know a rank of Open MPI: processes which mpirun or orted started."""
    for child in children(pid):
        if b"\0OMPI_COMM_WORLD_RANK=" in b"\0" + read_proc(child, "environ"):
            yield child
        else:
            yield from mpi_ranks(child)


def exit_codes(pids: Collection[int]) -> list[int]:
    """Return the exit codes of ended processes that their parent has not reaped; 128 + N after signal N."""
    found = []
    for pid in pids:
        fields = read_proc(pid, "stat").rpartition(b")")[2].split()  # from the state on; the last is the exit status
        if fields[:1] == [b"Z"]:
            code = os.waitstatus_to_exitcode(int(fields[-1]))
            found.append(code if code >= 0 else 128 - code)
    return found


def handles(pid: int, number: signal.Signals) -> bool:
    """Return whether a process has a handler for a signal."""
    caught = re.search(rb"^SigCgt:\s*([0-9a-f]+)$", read_proc(pid, "status"), re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


def session_members(session: int) -> list[int]:
    """Return the living processes of a session."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    # The fields behind the command's name: state, parent, process group, session (proc(5)).
    fields = {pid: read_proc(pid, "stat").rpartition(b")")[2].split()[:4] for pid in pids}
    return [pid for pid, found in fields.items() if found[3:] == [b"%d" % session] and found[0] != b"Z"]


def kill_session(session: int) -> None:
    """Kill all processes of a session; mpirun gives each rank a process group, but all ranks have its session."""
    for pid in session_members(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def reap_orphans(own: Collection[int]) -> None:
    """Reap ended children that this process did not start: orphans of process 1, or of a child subreaper.

    Args:
        own: Process ids of started children, which `subprocess` reaps.
    """
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid not in own:
            os.waitpid(ended.si_pid, 0)


def detach_standard_streams() -> None:
    """Point standard input, output and error at /dev/null, so that their readers do not wait for this process."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
