"""Processes of a test, found by a mark.

mark = new_mark()
process = subprocess.Popen(command, env={**os.environ, MARK: mark})
assert marked_processes(mark) >= {process.pid}

Decides: how a process of the test is recognized. Never: which processes there should be.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

MARK = "DISTRAIN_TEST_MARK"
_NAME_LENGTH = 15  # of a process, which the kernel cuts


def new_mark() -> str:
    """Return a mark that no other test uses."""
    return uuid.uuid4().hex


def marked_processes(mark: str) -> set[int]:
    """Return the living processes, other than this one, that carry a mark.

    A process carries the mark in its environment, or in its name if `preloaded_server.py` has forked the process.
    """
    variable = f"{MARK}={mark}".encode()
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            name = (path / "comm").read_text().rstrip()
            is_marked = name == mark[:_NAME_LENGTH] or variable in (path / "environ").read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if is_marked and int(path.name) != os.getpid():
            found.add(int(path.name))
    return found


def workers_of(mark: str, module: str) -> list[int]:
    """Return the processes with a mark that run a module, the first one first."""
    return sorted(pid for pid in marked_processes(mark) if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes())
