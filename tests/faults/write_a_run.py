"""Writes everything that a run writes, without training: opening, log, status, checkpoints, manifest, model, summary.

write_a_run.main("runs/1", "data/vectorizer")

It prints the lines of the log that it finds, the step that it goes on from, and each step that is saved or logged.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from distrain.config import TrainConfig
from distrain.errors import DistrainError
from distrain.files import describe
from distrain.fingerprints import GrowingFile
from distrain.reporting.metrics_log import MetricsLog
from distrain.reporting.reporter import write_summary
from distrain.reporting.status import StatusFile
from distrain.reporting.write_warning import WriteWarning
from distrain.runs.checkpoint import checkpoint_path, retain_checkpoints, save_checkpoint
from distrain.runs.directory import write_model
from distrain.runs.disk_room import required_write
from distrain.runs.lock import check_held
from distrain.runs.manifest import record_growth, rewriting, take_back_checkpoint
from distrain.runs.opening import open_run

RESOLVED = {"data_digest": "abc", "strategy": "single", "num_replicas": 1, "replica_batch_size": 128}
LAST_STEP = 4
KEPT = 2


class Model:
    """A model of one array."""

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = weights

    def save(self, path: Path) -> None:
        """Write the array."""
        path.write_bytes(self.weights.tobytes())


def main(run: str, vectorizer: str) -> int:
    """Write a run, or go on in it; return the exit code."""
    logging.basicConfig(format="distrain: %(levelname)s: %(message)s", force=True)
    try:
        _write_run(Path(run), Path(vectorizer))
    except DistrainError as error:
        print(f"distrain: error: {error}")
        return error.exit_code
    return 0


def _write_run(run: Path, vectorizer: Path) -> None:
    if (run / "metrics.jsonl").is_file():
        print("found lines", (run / "metrics.jsonl").read_bytes().count(b"\n"))
    config = TrainConfig(data=vectorizer.parent, run=run, strategy="single")
    with open_run(config, RESOLVED, vectorizer=vectorizer) as restored, MetricsLog(run / "metrics.jsonl") as log:
        weights = np.zeros(1000) if restored is None else restored.arrays["weights"]
        first = 0 if restored is None else int(restored.state["global_step"])
        print("from", first, flush=True)
        status = StatusFile(run, time=0.0)
        warn = WriteWarning("an old checkpoint", action="removed")
        warn_of_manifest = WriteWarning(str(run / "manifest.json"))
        grown = GrowingFile(run / "metrics.jsonl")
        checkpoints = run / "checkpoints"
        for step in range(first + 1, LAST_STEP + 1):
            weights = weights * 0.5 + step
            check_held(run)
            state = {"global_step": step, "data_digest": "abc"}
            try:
                take_back_checkpoint(run, step)
            except OSError as error:
                warn_of_manifest(describe(error))
            with required_write(checkpoint_path(checkpoints, step), run=run):
                save_checkpoint(checkpoints, step, {"weights": weights}, state)
                if step == LAST_STEP:  # the end of an epoch replaces the checkpoint of its last step
                    save_checkpoint(checkpoints, step, {"weights": weights}, {**state, "finished": "epochs"})
            print("saved", step, flush=True)
            try:
                retain_checkpoints(checkpoints, keep=KEPT, best_step=None)
            except OSError as error:
                warn(describe(error))
            log.write("checkpoint", step=step, epoch=1, time=0.0)
            log.sync()
            print("logged", step, flush=True)
            status.update({"step": step}, time=1.0)
            try:
                record_growth(run, grown, saved=step)
            except OSError as error:
                warn_of_manifest(describe(error))
        with required_write(run / "summary.json", run=run), rewriting(run, "model.keras", "summary.json"):
            write_model(run, Model(weights))
            write_summary(run, {"weights": float(weights.sum())})
