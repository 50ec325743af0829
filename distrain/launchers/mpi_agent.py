"""Runs orted, by which mpirun starts ranks on another host, and ends all that orted starts.

Decides: when a host has failed to start its ranks, and when orted hangs. Never: how many ranks run, or where.

    $ python -m distrain.launchers.mpi_agent orted --daemonize ...           # as mpirun's orte_launch_agent

    Event                               Reaction
    orted is killed                     its ranks are killed
    orted outlives ranks and mpirun     it is killed, because it waits for a host that no longer answers
    the ranks of a host do not start    orted is killed and mpirun informed, which ends the job
    a stranger's connection blocks it   the connection is shut down (connections.py)
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from distrain.launchers.connections import StrangerEviction
from distrain.launchers.job_folders import remove_remains
from distrain.launchers.processes import detach_standard_streams, kill_session, mpi_ranks
from distrain.launchers.supervisor import (
    HANG_SECONDS,
    StderrRelay,
    accepts_connection,
    exit_code_of,
    polls,
    say,
    start,
)

START_SECONDS = 60.0  # no rank starts before all hosts have answered mpirun


def run_agent(command: Sequence[str]) -> int:
    """Run orted, and return as soon as its ranks have started; a forked process goes on watching orted.

    Returns:
        0 when the ranks have started; 1 when orted ended before, or started no rank in 60 s, which ends the job.
    """
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        return 0 if os.read(reading, 1) else 1
    os.setsid()
    relay = StderrRelay()
    foreground = [word for word in command if word != "--daemonize"]
    orted = start(
        foreground, signal_at_death=signal.SIGTERM, stdout=subprocess.DEVNULL, stderr=relay, start_new_session=True
    )
    relay.begin()
    evict = StrangerEviction(orted.pid)
    if _await_ranks(orted, evict):
        os.write(writing, b"1")
        os.close(writing)
        detach_standard_streams()  # ssh waits for the end of these streams
    addresses = mpirun_addresses(" ".join(command))
    look_at = 0.0
    for _ in polls([orted]):
        evict()
        if time.monotonic() < look_at:
            continue
        look_at = time.monotonic() + HANG_SECONDS / 2
        if addresses and not any(mpi_ranks(orted.pid)) and not any(map(accepts_connection, addresses)):
            orted.kill()
    kill_session(orted.pid)
    remove_remains()
    return 0


def _await_ranks(orted: subprocess.Popen[bytes], evict: StrangerEviction) -> bool:
    """Return whether orted has started ranks; kill orted when it takes too long."""
    deadline = time.monotonic() + START_SECONDS
    for _ in polls([orted]):
        evict()
        if any(mpi_ranks(orted.pid)):
            return True
        if time.monotonic() > deadline:
            say(
                "error",
                f"{os.uname().nodename} cannot connect to the mpirun that starts ranks here, or another host does not "
                f"answer mpirun; waited {START_SECONDS:g} s. Open the ports between the hosts, or name the network "
                "that joins them with --interface.",
            )
            orted.kill()
    return False


def mpirun_addresses(command: str) -> list[tuple[str, int]]:
    """Return where mpirun listens, from an argument of orted: "1576.0;tcp://10.0.0.1,10.1.0.1:38857"."""
    found = re.search(r"orte_hnp_uri [^ ]*?;tcp://([0-9.,]+):(\d+)", command)
    return [(address, int(found[2])) for address in found[1].split(",")] if found else []


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: run_agent(sys.argv[1:])))
