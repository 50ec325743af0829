"""Runs a command and measures it from outside: wall and CPU seconds, memory of each process.

Decides: how time and memory are measured. Never: which command runs.

    measured = run_measured(distrain("prepare", "--train", "train.csv", "--out", "data"))
    measured.seconds, measured.peak_bytes

Memory is RssAnon of `/proc/PID/status`: pages that no file backs, so memory-mapped data does not count. The sampler
looks every 20 milliseconds and can miss a shorter peak. Linux only.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

BIN = Path(sys.executable).parent
MPIRUN = [str(BIN / "mpirun"), "--oversubscribe", "--bind-to", "none", "-n"]
SAMPLE_SECONDS = 0.02
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


class Measured(NamedTuple):
    """The measurements of one command.

    Attributes:
        began: start of the command, in seconds since 1970.
        seconds: wall time until the process ended.
        cpu_seconds: CPU time of the process and of all children that it waited for.
        peak_bytes: peak RssAnon of each process of the command, largest first.
        output: standard output of the command.
    """

    began: float
    seconds: float
    cpu_seconds: float
    peak_bytes: list[int]
    output: str


def distrain(*arguments: object) -> list[str]:
    """Return the words of a distrain command."""
    return [sys.executable, "-m", "distrain", *map(str, arguments)]


def run_measured(command: Sequence[str]) -> Measured:
    """Run a command to its end and measure it.

    Raises:
        SystemExit: the command failed; the message holds its standard error.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    peaks: dict[int, int] = {}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        began, clock = time.time(), time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors, env={**os.environ, **QUIET})
        while process.poll() is None:
            for pid in family(process.pid):
                peaks[pid] = max(peaks.get(pid, 0), _anonymous_bytes(pid))
            time.sleep(SAMPLE_SECONDS)
        seconds = time.perf_counter() - clock
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            sys.exit(f"{' '.join(command)}\nreturned {process.returncode}:\n{errors.read()[-4000:]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        peak_bytes = sorted(filter(None, peaks.values()), reverse=True)
        return Measured(began, seconds, cpu_seconds, peak_bytes, output.read())


def family(pid: int) -> list[int]:
    """Return the living processes of a family: the process and all its descendants."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(descendant for child in children for descendant in family(child))]


def _anonymous_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)
