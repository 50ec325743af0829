#!/usr/bin/env python3
"""Stands in for `distrain` in the tests of launch/slurm.sbatch: a rank that tells what it sees and hears.

Every rank appends lines to $RANKS_LOG: {"rank", "size", "host", "arguments", "restarts"} when it starts,
{"rank", "heard"} for each signal. What it does then is its second argument:

    train --leave CODE      leaves with this code; the other ranks a moment later
    train --work            works until it is told to stop, takes a second to save, leaves with 42; where the job was
                            started again it is ready and leaves with 0, unless `for ever` follows
    train --early           as --work, but is ended by the signal, as if it could not listen yet
    train --deaf            is told to stop in vain
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
heard: list[int] = []


def tell(**facts: object) -> None:
    with Path(os.environ["RANKS_LOG"]).open("a") as log:
        log.write(json.dumps({"rank": rank, **facts}) + "\n")


def hear(number: int, _: object) -> None:
    heard.append(number)
    tell(heard=signal.Signals(number).name)


def work() -> int:
    if restarts and "for ever" not in sys.argv:
        return 0
    while not heard:
        time.sleep(0.05)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        time.sleep(0.05)
    tell(saved=True)
    return 42


for each in STOPS:
    signal.signal(each, signal.SIG_DFL if "--early" in sys.argv else hear)
launcher = "mpirun" if "OMPI_COMM_WORLD_RANK" in os.environ else "srun"
place = {"size": size, "host": os.uname().nodename, "launcher": launcher, "pid": os.getpid()}
tell(**place, arguments=sys.argv[1:], restarts=restarts)
match sys.argv[2:]:
    case ["--leave", code, *_]:
        time.sleep(0.2 * rank)
        sys.exit(int(code))
    case ["--work" | "--early", *_]:
        sys.exit(work())
    case ["--deaf", *_]:
        while True:
            time.sleep(1)
