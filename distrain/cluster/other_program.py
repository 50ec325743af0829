"""Runs another program for its answer.

Decides: that the program gets no input, and ends in time. Never: judges the answer.

    >>> answer_of(["echo", "yes"], seconds=10).stdout.strip()
    'yes'
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence


def answer_of(
    command: Sequence[str], *, seconds: float, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Return what a program wrote, and its exit code.

    Args:
        command: program and arguments.
        seconds: time limit.
        environ: variables of the program; default: the variables of this process.

    Raises:
        OSError: the program cannot be started.
        TimeoutExpired: the program has not ended in time, and was killed.
    """
    return subprocess.run(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
    )
