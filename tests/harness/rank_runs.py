"""What the ranks of one launch of programs/ranks_program.py wrote, and how to compare it.

ranks = Ranks(folder, size=2, failure="")
distance(ranks.weights("ngram"), alone.weights("ngram"))       # largest difference, relative to the largest weight
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launching import needs_horovod, needs_mpi

PARAMETERS = ("launcher", "strategy", "size")
MPIRUN = [
    *[pytest.param("mpirun", "mpi", size, id=f"mpirun-mpi-{size}", marks=needs_mpi) for size in (2, 3)],
    *[pytest.param("mpirun", "horovod", size, id=f"mpirun-horovod-{size}", marks=needs_horovod) for size in (2, 3)],
]


@dataclass(frozen=True)
class Ranks:
    """The files that all ranks of one launch wrote.

    Attributes:
        folder: the folder of the files.
        size: number of ranks.
        failure: output of a launch that failed; empty otherwise.
    """

    folder: Path
    size: int
    failure: str

    def facts(self, run: str) -> list[dict[str, Any]]:
        """Return each rank's facts of a run."""
        return [_read_json(self.folder / f"{run}.{rank}.json") for rank in range(self.size)]

    def arrays(self, run: str) -> list[dict[str, np.ndarray]]:
        """Return each rank's arrays of a run, by name."""
        return [_read_arrays(self.folder / f"{run}.{rank}.npz") for rank in range(self.size)]

    def weights(self, run: str, *, rank: int = 0) -> list[np.ndarray]:
        """Return a rank's weights after the last epoch."""
        arrays = self.arrays(run)[rank]
        last = max(name.partition("/")[0] for name in arrays)
        return [array for name, array in arrays.items() if name.startswith(f"{last}/")]

    def fed(self, run: str, purpose: str, *, epoch: int = 0) -> Counter[tuple[str, float]]:
        """Count how often any rank fed each (example, weight) for `purpose`, "train" or "evaluate"."""
        calls = [call for facts in self.facts(run) for call in facts["fed"]]
        return Counter(
            example
            for call in calls
            if (call["purpose"], call["epoch"]) == (purpose, epoch)
            for example in zip(call["examples"], call["weights"], strict=True)
        )


@cache  # hundreds of tests read the same files
def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@cache
def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    arrays = dict(np.load(path))
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def distance(weights: list[np.ndarray], others: list[np.ndarray]) -> float:
    """Return the largest difference, relative to the largest of the other weights."""
    largest = max(np.abs(array).max() for array in others)
    return max(np.abs(a - b).max() for a, b in zip(weights, others, strict=True)) / largest
