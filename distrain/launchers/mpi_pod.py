"""The entry of a pod of an MPIJob, or of a TrainJob by MPI: sshd in the workers, mpirun in the launcher.

Decides: when the launcher may begin, and what a signal means to a worker, or to a launcher without ranks. Never: which
pods there are, or how ranks are started; the operator and `multi_node.sh` do.

    $ python -m distrain.launchers.mpi_pod worker                             # sshd, by which mpirun starts ranks here
    $ python -m distrain.launchers.mpi_pod launcher --data data --run run     # waits for workers, then multi_node.sh

    Event                                         Reaction
    SIGTERM to a worker, as a node is drained     SIGTERM to its ranks: all save and exit; then the worker exits with 42
    SIGTERM to the launcher                       exit code 42 at once; once there are ranks, they save first
    a worker does not answer                      the launcher names it after DISTRAIN_RENDEZVOUS_SECONDS (600), code 5

A drained worker exits with 42 instead of 0, because Kubernetes counts 0 as complete and starts no pod in its place.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from distrain.cluster.signals import StopRequest, listen_for_stop
from distrain.errors import ConfigurationError, RankError, StopRequested
from distrain.launchers.processes import children, mpi_ranks
from distrain.launchers.supervisor import POLL_SECONDS, accepts_connection, exit_code_of, polls, send_once, start

HOSTFILE = Path("/etc/mpi/hostfile")  # mpi-operator and Kubeflow Trainer mount it: lines of "HOST slots=N"
MULTI_NODE = "/opt/distrain/launch/multi_node.sh"  # k8s/Dockerfile
PORT = 2222  # k8s/mpi/sshd_config
SSHD = ["/usr/sbin/sshd", "-D", "-e"]  # in the foreground, with its log on standard error
DEFAULT_SECONDS = "600"  # nodes start and pull images at different speeds

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


def run_launcher(arguments: Sequence[str]) -> int:
    """Wait for the workers of the hostfile, then run multi_node.sh with these arguments, and return its exit code.

    Raises:
        RankError: A worker does not answer.
        StopRequested: A signal came before there were ranks.
    """
    stop = listen_for_stop()
    try:
        hosts = [line.split()[0] for line in HOSTFILE.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise ConfigurationError(
            f"{HOSTFILE} cannot be read ({error.strerror}); the operator mounts it in a launcher."
        ) from None
    _await_workers(hosts, stop)
    script = start([MULTI_NODE, "--hostfile", HOSTFILE, *arguments], signal_at_death=signal.SIGTERM)
    sent: set[int] = set()
    for _ in polls([script]):
        if stop.signal_name:
            send_once(signal.SIGTERM, [script.pid], sent)
    if script.returncode == -signal.SIGTERM:  # before its mpirun listened
        raise _stopped(stop)
    return script.returncode if script.returncode >= 0 else 128 - script.returncode


def _await_workers(hosts: Sequence[str], stop: StopRequest) -> None:
    """Return when sshd answers on all hosts."""
    seconds = os.environ.get("DISTRAIN_RENDEZVOUS_SECONDS", DEFAULT_SECONDS)
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", seconds):
        raise ConfigurationError(
            f"DISTRAIN_RENDEZVOUS_SECONDS={seconds[:40]!r} is not a number of seconds, such as {DEFAULT_SECONDS}."
        )
    deadline = time.monotonic() + float(seconds)
    missing = hosts
    while missing := [host for host in missing if not accepts_connection((host, PORT))]:
        if stop.signal_name:
            raise _stopped(stop)
        if time.monotonic() > deadline:
            raise RankError(
                f"after {seconds} s there is no sshd on port {PORT} of {', '.join(missing)}. `kubectl describe pod` "
                "says why a worker does not run. Once it does: start the same command again, or give workers more "
                "time by DISTRAIN_RENDEZVOUS_SECONDS."
            )
        time.sleep(POLL_SECONDS)


def _stopped(stop: StopRequest) -> StopRequested:
    return StopRequested(f"{stop.signal_name} came before training. Start the same command again to train.")


def run_worker() -> int:
    """Run sshd; return 42 when the ranks have saved after a signal.

    Raises:
        RankError: sshd ended by itself.
    """
    stop = listen_for_stop()
    # The agents of mpirun leave sshd's processes. As a subreaper, this process becomes their parent and finds them.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    sshd = start(SSHD, signal_at_death=signal.SIGTERM)
    sent: set[int] = set()
    for _ in polls([sshd]):
        if stop.signal_name:
            send_once(signal.SIGTERM, mpi_ranks(os.getpid()), sent)
            if set(children(os.getpid())) == {sshd.pid} and not any(children(sshd.pid)):
                sshd.terminate()
                sshd.wait()
                return StopRequested.exit_code
    raise RankError(f"sshd ended with exit code {sshd.returncode}; its log above says why.")


def main(arguments: Sequence[str]) -> int:
    """Run the worker or the launcher."""
    if list(arguments) == ["worker"]:
        return run_worker()
    if arguments[:1] == ["launcher"]:
        return run_launcher(arguments[1:])
    raise ConfigurationError("start mpi_pod with the argument `worker`, or with `launcher ARGUMENT ...`")


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: main(sys.argv[1:])))
