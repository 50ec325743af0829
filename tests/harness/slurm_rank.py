#!/usr/bin/env python3
"""Stands in for `distrain` in the tests of launch/slurm.sbatch: a rank that logs its start and its signals.

Every rank appends lines to $RANKS_LOG: {"rank", "size", "host", "arguments", "restarts"} when it starts, and
{"rank", "received"} for each signal. Its second argument says what it does then:

    train --leave CODE      rank 0 exits with this code, the other ranks a moment later
    train --work            works until a signal, saves for a second, and exits with 42; after a restart of the job it
                            exits with 0 at once, unless `for ever` follows
    train --early           as --work, but without handlers, so that the signal kills it
    train --ignoring            ignores all signals
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)

rank, size = (
    next(int(os.environ[name]) for name in names if name in os.environ)
    for names in (("OMPI_COMM_WORLD_RANK", "SLURM_PROCID"), ("OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"))
)
restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
received: list[int] = []


def log(**facts: object) -> None:
    with Path(os.environ["RANKS_LOG"]).open("a") as file:
        file.write(json.dumps({"rank": rank, **facts}) + "\n")


def handle(number: int, _: object) -> None:
    received.append(number)
    log(received=signal.Signals(number).name)


def work() -> int:
    if restarts and "for ever" not in sys.argv:
        return 0
    while not received:
        time.sleep(0.05)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        time.sleep(0.05)
    log(saved=True)
    return 42


for each in STOPS:
    signal.signal(each, signal.SIG_DFL if "--early" in sys.argv else handle)
launcher = "mpirun" if "OMPI_COMM_WORLD_RANK" in os.environ else "srun"
position = {"size": size, "host": os.uname().nodename, "launcher": launcher, "pid": os.getpid()}
log(**position, arguments=sys.argv[1:], restarts=restarts)
match sys.argv[2:]:
    case ["--leave", code, *_]:
        time.sleep(0.2 * rank)
        sys.exit(int(code))
    case ["--work" | "--early", *_]:
        sys.exit(work())
    case ["--ignoring", *_]:
        while True:
            time.sleep(1)
