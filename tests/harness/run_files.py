"""Reads the files of a run directory, also while the run goes on.

events(run)[-1]["step"]
assert distance(run, other_run) <= 1e-5
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file


def events(run: Path) -> list[dict[str, Any]]:
    """Return the objects of metrics.jsonl; a last line that is not yet complete is left out."""
    log = run / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def last_step(run: Path) -> int:
    """Return the last step that the run has logged; 0 before the first."""
    return max((event["step"] for event in events(run)), default=0)


def summary(run: Path) -> dict[str, Any]:
    """Return summary.json of a finished run."""
    return json.loads((run / "summary.json").read_text())


def newest_checkpoint(run: Path) -> Path:
    """Return the folder of the newest checkpoint."""
    return max((run / "checkpoints").glob("step-*"))


def distance(run: Path, other: Path) -> float:
    """Return the largest difference between the weights of two runs, relative to the largest weight."""
    first, second = _weights(run), _weights(other)
    assert first.keys() == second.keys()
    largest = max(np.abs(array).max() for array in second.values())
    return float(max(np.abs(first[name] - second[name]).max() for name in second) / largest)


def _weights(run: Path) -> dict[str, np.ndarray]:
    arrays = load_file(newest_checkpoint(run) / "arrays.safetensors")
    return {name: array for name, array in arrays.items() if name.startswith("model/") and array.dtype.kind == "f"}
