"""What runs in the pods of an MPIJob, and of a TrainJob by MPI: sshd in the workers, mpirun in the launcher.

Decides: when the launcher may begin, and what a signal to a pod means before there are ranks, or to a worker. Never:
which pods there are, or how ranks are started; the operator and `multi_node.sh` do.

    mpi_pod.py worker                              # sshd, by which mpirun starts the ranks of this pod
    mpi_pod.py launcher --data data --run run      # waits for all workers, then runs multi_node.sh

What happens                                  What follows
SIGTERM to a worker (a node is drained)       SIGTERM to its ranks: all save and leave; then this ends with 42
SIGTERM to the launcher                       42 at once; when there are ranks, they save first (run_ranks.py)
a worker does not come                        the launcher names it after DISTRAIN_RENDEZVOUS_SECONDS (600): 5

A worker ends with 42 and not with 0, by which Kubernetes would take its work as done and start no pod in its place.
Needs nothing but Python's standard library, Linux and OpenSSH.
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
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

STOPPED, LOST, WRONG = 42, 5, 2  # see distrain/errors.py

HOSTFILE = Path("/etc/mpi/hostfile")  # mounted by mpi-operator and by Kubeflow Trainer: a line "HOST slots=N" each
PORT = 2222  # k8s/mpi/sshd_config
SSHD = ["/usr/sbin/sshd", "-D", "-e"]  # in the foreground, its words to standard error
POLL_SECONDS = 0.2
CONNECT_SECONDS = 5.0
DEFAULT_SECONDS = 600.0  # nodes start and pull images at different speeds

_SET_CHILD_SUBREAPER = 36  # prctl(2)
_TERM_WORD = "SIGTERM came before training. Start the same command again to train."


def run_launcher(arguments: Sequence[str]) -> int:
    """Wait for the workers of the hostfile, then run multi_node.sh with these arguments.

    Returns:
        Its exit code, that of the job; 42 where a signal came before there were ranks; 5 where a worker does not come;
        2 where there is no hostfile, or a wrong number of seconds.
    """
    stopped = _listen()
    try:
        hosts = [line.split()[0] for line in HOSTFILE.read_text().splitlines() if line.strip()]
    except OSError as error:
        return _fail(WRONG, f"{HOSTFILE} cannot be read ({error.strerror}); the operator mounts it in a launcher.")
    seconds = os.environ.get("DISTRAIN_RENDEZVOUS_SECONDS", str(DEFAULT_SECONDS))
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", seconds):
        return _fail(WRONG, f"DISTRAIN_RENDEZVOUS_SECONDS={seconds[:40]!r} is not a number of seconds, such as 600.")
    deadline = time.monotonic() + float(seconds)
    missing = hosts
    while missing := [host for host in missing if not _answers(host)]:
        if stopped():
            return _fail(STOPPED, _TERM_WORD)
        if time.monotonic() > deadline:
            return _fail(
                LOST,
                f"after {seconds} s there is no sshd on port {PORT} of {', '.join(missing)}. `kubectl describe pod` "
                "says why a worker does not run. Once it does: start the same command again, or give workers more "
                "time by DISTRAIN_RENDEZVOUS_SECONDS.",
            )
        time.sleep(POLL_SECONDS)
    script = Path(__file__).with_name("multi_node.sh")
    process = subprocess.Popen([script, "--hostfile", HOSTFILE, *arguments], stdin=subprocess.DEVNULL)
    is_told = False
    while process.poll() is None:
        if stopped() and not is_told:
            process.terminate()
            is_told = True
        time.sleep(POLL_SECONDS)
    if process.returncode == -signal.SIGTERM:  # before run_ranks.py listened
        return _fail(STOPPED, _TERM_WORD)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def run_worker() -> int:
    """Run sshd until it ends, or until a signal has let the ranks save.

    Returns:
        42 after a signal; 5 where sshd has ended by itself.
    """
    stopped = _listen()
    # The daemons of mpirun leave sshd's processes: they become children of this one, which finds and reaps them.
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    sshd = subprocess.Popen(SSHD, stdin=subprocess.DEVNULL)
    told: set[int] = set()
    while True:
        _reap(sshd.pid)
        if sshd.poll() is not None:
            return _fail(LOST, f"sshd has ended with {sshd.returncode}; what it says above tells why.")
        if stopped():
            running = set(_descendants(os.getpid())) - {sshd.pid}
            if not running:
                break
            for rank in _ranks(running) - told:
                told.add(rank)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rank, signal.SIGTERM)
        time.sleep(POLL_SECONDS)
    sshd.terminate()
    sshd.wait()
    return STOPPED


def _listen() -> Callable[[], bool]:
    """Hear SIGTERM and SIGINT from now on; returns what says whether one came."""
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hear)
    return lambda: bool(heard)


def _answers(host: str) -> bool:
    """Whether sshd is there; a name is looked up anew each time, as a pod's address comes with the pod."""
    try:
        socket.create_connection((host, PORT), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _descendants(process: int) -> Iterator[int]:
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, children.read_text().split()):
                yield child
                yield from _descendants(child)


def _ranks(processes: set[int]) -> set[int]:
    """Those that mpirun's daemon started: they know their rank, and are no children of one that does."""
    know = {process for process in processes if b"OMPI_COMM_WORLD_RANK=" in _read(process, "environ")}
    return {process for process in know if _parent(process) not in know}


def _parent(process: int) -> int:
    return int((_read(process, "stat").rpartition(b")")[2].split() or [b"0", b"0"])[1])


def _read(process: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{process}/{name}").read_bytes()
    except OSError:  # it has ended, or is sshd, which shows nothing
        return b""


def _reap(sshd: int) -> None:
    """Take leave of ended orphans; sshd is the one child that `subprocess` waits for."""
    for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
        if int(child) != sshd:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(int(child), os.WNOHANG)


def _fail(code: int, what: str) -> int:
    print(f"distrain: {'stopped' if code == STOPPED else 'error'}: {what}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        sys.exit(run_worker())
    if sys.argv[1:2] == ["launcher"]:
        sys.exit(run_launcher(sys.argv[2:]))
    sys.exit(_fail(WRONG, "mpi_pod.py is started as `mpi_pod.py worker`, or `mpi_pod.py launcher ARGUMENT ...`"))
