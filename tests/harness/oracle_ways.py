"""Starts `oracle_runs.py` by programs of one rank and of many.

Decides: how a way is started. Never: which cases a source has.

    train_ways(folder, ["keras", "single", "mirrored-2", "mpi-3"], "float64", "0:20")      # three programs
    words, trained = read(folder, "mpi-3", "7")
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from concurrent_launches import MAX_LAUNCHES
from launching import environment, launcher_command
from preloaded import preloaded_python

PROGRAM = Path(__file__).with_name("oracle_runs.py")
ROOT = PROGRAM.parents[2]
LAUNCHERS = {"mpi": "mpirun", "horovod": "mpirun"}


def train_ways(folder: Path, ways: Sequence[str], floatx: str, source: str, *, timeout: float = 600) -> None:
    """Train the cases of a source each way.

    Raises:
        AssertionError: a program failed; the message holds the end of its standard error.
    """

    def train(way: str) -> None:
        strategy, _, replicas = way.partition("-")
        launcher = launcher_command(LAUNCHERS[strategy], int(replicas)) if strategy in LAUNCHERS else []
        command = [*launcher, *preloaded_python(), str(PROGRAM), str(folder), way, floatx, source]
        env = environment({"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"})
        done = subprocess.run(
            command,
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, f"{way}: {done.stdout[-1000:]}{done.stderr[-4000:]}"

    with ThreadPoolExecutor(MAX_LAUNCHES) as pool:
        list(pool.map(train, ways))
