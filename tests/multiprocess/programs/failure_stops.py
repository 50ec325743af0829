"""One rank of several runs that end before their time, in one launch: python failure_stops.py FOLDER RUNS.

RUNS is JSON: a list of {"name": ..., "settings": {...}, "attempts": [[EVENT, ...], ...]}; see failure_events.py. Each
attempt resumes the previous attempt. "{rank}" in the path of the data becomes this rank's number. Each rank writes
FOLDER/NAME.RANK.json: how each attempt ended on this rank.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from failure_events import eventful

import distrain.training.checkpoints.saving
from distrain.cluster.world import find_world
from distrain.config import TrainConfig
from distrain.errors import DistrainError
from distrain.models.state import ModelState
from distrain.runs.checkpoint import list_checkpoints, load_checkpoint
from distrain.training.jobs.job import open_job
from distrain.training.run import run_job

RANK = find_world(os.environ).rank
SAVE_CHECKPOINT = distrain.training.checkpoints.saving.save_checkpoint


def attempt(config: TrainConfig, events: list[dict[str, Any]]) -> dict[str, Any]:
    """Train until an event ends the run; return the end, with digests of the weights in memory and on disk."""
    own = [event for event in events if event["rank"] == RANK]
    distrain.training.checkpoints.saving.save_checkpoint = SAVE_CHECKPOINT
    jobs = []

    def open_own() -> Any:
        jobs.append(eventful(open_job(config), config, own, before_event=lambda: None))
        return jobs[-1]

    ended: dict[str, Any] = {"code": 0, "message": "", "reporting_rank": None}
    try:
        run_job(open_own, config)
    except DistrainError as error:
        ended = {"code": error.exit_code, "message": str(error), "reporting_rank": error.reporting_rank}
    model = jobs[-1].callbacks[0].model
    arrays = ModelState(model, model.optimizer).arrays()
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values()))
    newest = load_checkpoint(list_checkpoints(config.run / "checkpoints")[-1])
    return {
        **ended,
        "digest": digest.hexdigest(),
        "checkpoint": newest.path.name,
        "global_step": newest.state["global_step"],
        "position": newest.state["position"],
        "holds_checkpoint": all(np.array_equal(array, newest.arrays[name]) for name, array in arrays.items()),
    }


def main(folder: Path, runs: list[dict[str, Any]]) -> None:
    """Train all runs."""
    for run in runs:
        settings = {**run["settings"], "data": run["settings"]["data"].replace("{rank}", str(RANK))}
        config = TrainConfig(run=folder / run["name"], **settings)
        ended = [attempt(config, events) for events in run["attempts"]]
        (folder / f"{run['name']}.{RANK}.json").write_text(json.dumps(ended), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
