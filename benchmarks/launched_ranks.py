"""Launches ranks of a benchmark, and brings the figures of rank 0 back.

Decides: the environment of ranks, and how figures travel. Never: what ranks measure.

    figures = figures_of(["mpirun", "-n", "2", sys.executable, __file__, "--in-rank"])     # in the benchmark
    tell(figures)                                                                          # in each rank
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from measuring import BIN, QUIET

from distrain.cluster.world import find_world

MARK = "MEDIANS"


def tell(figures: Any) -> None:
    """Print the figures, on rank 0 alone."""
    if find_world(os.environ).rank == 0:
        print(f"{MARK}{json.dumps(figures)}", flush=True)


def figures_of(command: Sequence[str], *, seconds: float, environ: Mapping[str, str] | None = None) -> Any:
    """Launch ranks that end with `tell`, and return the figures of rank 0.

    Args:
        command: launcher, program and arguments.
        seconds: time limit.
        environ: variables beside the variables of this process.

    Raises:
        SystemExit: the ranks told nothing; the message holds their output.
    """
    variables = {**os.environ, **QUIET, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **(environ or {})}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=seconds, check=False)
    for line in done.stdout.splitlines():
        if MARK in line:
            return json.JSONDecoder().raw_decode(line.split(MARK)[1])[0]  # what follows is the launcher's
    raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
