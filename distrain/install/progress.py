r"""Runs a long command with its output in a log, and says every 20 seconds how far it is.

Decides: what a progress line says. Never: what a command does.

    $ python -m distrain.install.progress install.log "Installing TensorFlow" python -m pip install tensorflow-cpu
    Installing TensorFlow ...
      ... 20 s, Downloading tensorflow_cpu-2.21.0-cp311-cp311-manylinux_2_27_x86_64.whl (271.6 MB)

    >>> stage_of("Collecting keras\n[12/117] Building CXX object horovod/common/common.cc.o\n")
    '12 of 117 files compiled'

This module needs Python's own library alone, so that it also serves before anything is installed.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

LINE_SECONDS = 20.0  # between two lines
POLL_SECONDS = 0.2
TAIL_BYTES = 4000  # of the log, which are enough to hold the last line that tells the stage
SHOWN_LINES = 25  # of the log of a command that failed


def run_step(
    what: str,
    command: Sequence[str],
    *,
    log: Path,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> int:
    """Run a command to its end, append its output to the log, and return its exit code.

    If this process is interrupted, the command ends with all processes that it has started.

    Args:
        what: sentence for the user.
        command: program and arguments.
        log: file for the output.
        environ: variables of the command; default: the variables of this process.
        folder: working directory of the command.
    """
    print(f"{what} ...", flush=True)
    began = said = time.monotonic()
    with log.open("ab") as output:
        start = output.tell()
        job = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environ,
            cwd=folder,
            start_new_session=True,
        )
    try:
        while job.poll() is None:
            time.sleep(POLL_SECONDS)
            if time.monotonic() - said >= LINE_SECONDS:
                said = time.monotonic()
                stage = stage_of(_tail(log, start))
                print(f"  ... {said - began:.0f} s{f', {stage}' if stage else ''}", flush=True)
    finally:
        if job.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGTERM)
            job.wait()
    return job.returncode


def stage_of(log: str) -> str:
    """Return where a command is, by the last line of its log that tells; empty if none does."""
    for line in reversed(log.splitlines()):
        if found := re.match(r"\[(\d+)/(\d+)\] ", line):  # by ninja
            return f"{found[1]} of {found[2]} files compiled"
        if re.match(r"\s*(Collecting|Downloading|Building|Installing|Preparing)\b", line):  # by pip
            return line.strip()[:100]
    return ""


def show_tail(log: Path) -> None:
    """Print the last lines of a log on standard error."""
    lines = _tail(log).splitlines()[-SHOWN_LINES:]
    print(f"\nThe last lines of {log}:", *lines, "", sep="\n", file=sys.stderr, flush=True)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let a signal end this process with the usual exit code, and with everything that it has started and made."""
    before = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _tail(log: Path, start: int = 0) -> str:
    with log.open("rb") as file:
        file.seek(max(start, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        return file.read().decode(errors="replace")


def _main(arguments: Sequence[str]) -> int:
    log, what, *command = arguments
    Path(log).write_bytes(b"")
    with ended_by_signals():
        code = run_step(what, command, log=Path(log))
    if code != 0:
        show_tail(Path(log))
    return code


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
