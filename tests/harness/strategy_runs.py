"""One program under each strategy: alone, or as two ranks of a launcher.

@pytest.fixture(scope="module", params=STRATEGIES)
def strategy(request): ...

run_by_strategy(PROGRAM, folder, "mpi")      # programs/x.py FOLDER mpi, on two ranks
ends = agreed_ends(folder)                   # of the files ends.RANK.json that the ranks wrote
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import run_python
from launching import needs_horovod, needs_mpi, run_ranks
from preloaded import preloaded_python

STRATEGIES = [
    "single",
    "mirrored",
    pytest.param("mpi", marks=needs_mpi),
    pytest.param("horovod", marks=needs_horovod),
]
_LAUNCHERS = {"mpi": "mpirun", "horovod": "horovodrun --gloo"}


def run_by_strategy(program: Path, folder: Path, strategy: str) -> None:
    """Run a program with a folder and a strategy as arguments; it must succeed."""
    command = [str(program), str(folder), strategy]
    if strategy in _LAUNCHERS:
        done = run_ranks(_LAUNCHERS[strategy], 2, [*preloaded_python(), *command])
    else:
        done = run_python(*command)
    assert done.returncode == 0, done.stderr


def agreed_ends(folder: Path) -> dict[str, Any]:
    """Return how each run ended, equal on all ranks but for the message, which rank 0 prints."""
    first, *others = [json.loads(path.read_text()) for path in sorted(folder.glob("ends.*.json"))]
    for other in others:
        for name, end in other.items():
            assert {**first[name], "message": ""} == {**end, "message": ""}
    return first
