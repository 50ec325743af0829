"""Supervises the processes of a job: starts them, relays signals and standard error, and turns errors into exit codes.

Decides: how often processes are polled, which line is a final message, which code an error exits with, and how often a
job runs again. Never: knows which processes run or what a signal means to them; `pod`, `mpirun` and `mpi_pod` do.

    relay = StderrRelay()
    rank = start(["distrain", "train", "--data", "d", "--run", "r"], signal_at_death=signal.SIGKILL, stderr=relay)
    relay.begin()
    for _ in polls([rank]):
        if stop.signal_name:
            send_once(signal.SIGTERM, [rank.pid], sent)
    relay.end()

Launchers import only light modules, so that they handle signals within a tenth of a second of their start.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from distrain.cluster.signals import ignore_stop
from distrain.cluster.world import LAUNCH_ID
from distrain.errors import ERROR_BY_EXIT_CODE, DistrainError, RankError, StopRequested
from distrain.launchers.processes import reap_orphans

POLL_SECONDS = 0.1
HANG_SECONDS = 10.0  # mpirun and orted end within one second of their last rank
CONNECT_SECONDS = 5.0
MAX_LINE_BYTES = 2**16  # longer lines are relayed in parts, so that no line fills the memory
RELAY_END_SECONDS = 5.0  # a stream ends as soon as its last writer has; this bounds the wait for a writer that escaped
# A restart cannot mend the cause of these: success, wrong command or data, unusable checkpoint, divergence, a request.
FINAL_CODES = {0, *ERROR_BY_EXIT_CODE} - {RankError.exit_code}
GO_ON = "Start again: training goes on from the last checkpoint."

_PR_SET_PDEATHSIG = 1  # prctl(2)
_FINAL_MESSAGE = re.compile(rb"distrain: (error|stopped|interrupted)|distrain \w+: error")


def start(command: Sequence[str | Path], *, signal_at_death: signal.Signals, **options: Any) -> subprocess.Popen[bytes]:
    """Start a command without standard input, which the kernel signals when this process dies."""
    libc = ctypes.CDLL(None)  # loaded here, because the child may not load it between fork and exec

    def ask_for_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal_at_death))

    return subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=ask_for_signal, **options)


def polls(processes: Collection[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Yield every `POLL_SECONDS` until all processes have ended, and reap orphans meanwhile."""
    while None in [process.poll() for process in processes]:
        reap_orphans({process.pid for process in processes})
        yield
        time.sleep(POLL_SECONDS)


def send_once(number: signal.Signals, pids: Iterable[int], sent: set[int]) -> None:
    """Send a signal to each process that is not in `sent`, and add the process to `sent`."""
    for pid in set(pids) - sent:
        sent.add(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class StderrRelay:
    """Copies to standard error what processes write to a pipe, which `subprocess.Popen` accepts as `stderr`.

    Args:
        filtered: Function from all lines to the messages that are shown.

    Attributes:
        has_final_message: Whether a message said how the job ended.
        has_stopped: Whether that message said that the job stopped on request.
    """

    def __init__(self, filtered: Callable[[Iterator[bytes]], Iterable[bytes]] = iter) -> None:
        self.has_final_message = self.has_stopped = False
        self._reading, self._writing = os.pipe()
        self._thread = threading.Thread(target=self._relay, args=(filtered,), daemon=True)

    def fileno(self) -> int:
        """Return the write end of the pipe."""
        return self._writing

    def begin(self) -> None:
        """Relay from now on; all writers have been started."""
        os.close(self._writing)
        self._thread.start()

    def end(self) -> None:
        """Wait until all messages are relayed; all writers have ended."""
        self._thread.join(RELAY_END_SECONDS)

    def _relay(self, filtered: Callable[[Iterator[bytes]], Iterable[bytes]]) -> None:
        with os.fdopen(self._reading, "rb") as stream:
            for message in filtered(iter(lambda: stream.readline(MAX_LINE_BYTES), b"")):
                found = _FINAL_MESSAGE.match(message)
                if found and not self.has_final_message:
                    self.has_final_message, self.has_stopped = True, found[1] == b"stopped"
                write_stderr(message)


def write_stderr(message: bytes) -> None:
    """Write to standard error; a reader that has gone is no error."""
    with contextlib.suppress(OSError):
        sys.stderr.buffer.write(message)
        sys.stderr.buffer.flush()


def say(kind: str, what: str) -> None:
    """Write a message of a kind (error, stopped, interrupted, warning) to standard error."""
    write_stderr(f"distrain: {kind}: {what}\n".encode())


def accepts_connection(address: tuple[str, int]) -> bool:
    """Return whether a program listens at (host, port); each call looks the host up, as a new pod has a new address."""
    try:
        socket.create_connection(address, timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def exit_code_of(run: Callable[[], int], *, prefix: str = "") -> int:
    """Run a launcher's main function, and write the message of an error after `prefix`.

    Returns:
        Exit code that `run` returned, or of the error that `run` raised; 130 after a second SIGINT.
    """
    try:
        return run()
    except DistrainError as error:
        say("stopped" if isinstance(error, StopRequested) else "error", f"{prefix}{error}")
        return error.exit_code
    except KeyboardInterrupt:
        ignore_stop()
        say("interrupted", f"{prefix}a second SIGINT killed the ranks. {GO_ON}")
        return 128 + signal.SIGINT


def run_with_restarts(
    run: Callable[[], int], restarts: int, may_restart: Callable[[int], bool], *, prefix: str = ""
) -> int:
    """Run a job, and run it again when it has lost a rank.

    Args:
        run: Runs the job from its last checkpoint, and returns its exit code.
        restarts: Upper limit of restarts.
        may_restart: Whether the job may run again after an exit code.
        prefix: Prefix of the warning about a restart.

    Returns:
        Exit code of the last run.
    """
    if not os.environ.get(LAUNCH_ID):  # else a scheduler has set it, which may replace this process too
        os.environ[LAUNCH_ID] = uuid.uuid4().hex  # the ranks inherit the id: so a run knows its launch at a restart
    for restart in range(1, restarts + 1):
        code = run()
        if not may_restart(code):
            return code
        say("warning", f"{prefix}restart {restart} of {restarts}, from the last checkpoint.")
    return run()
