"""The end of a run: its best model and its summary.

Decides: what `summary.json` holds, and which checkpoint is the best model. Never: trains.

    result = finish_run(setup, actions, progress)
    result.model.predict(x)
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distrain.cluster.error_relay import run_on_all_ranks
from distrain.errors import CheckpointError
from distrain.file_names import CHECKPOINTS_NAME, MODEL_NAME, SUMMARY_NAME
from distrain.runs import directory as run_directory
from distrain.runs.checkpoint import Checkpoint
from distrain.runs.disk_room import required_write
from distrain.runs.manifest import check_files, rewriting
from distrain.runs.progress import Progress
from distrain.runs.served import load_best_step
from distrain.training.epochs import RunActions
from distrain.training.figures.class_counts import validation_figures
from distrain.training.run_setup import RunSetup
from distrain.training.setup import broadcast_checkpoint

_LOG = logging.getLogger(__name__)

MAX_SUMMARY_CLASSES = 1_000  # a class takes about 120 bytes of `summary.json`, which should stay small


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        model: the best model, a Keras model.
        summary: content of `summary.json`.
        history: metrics of each epoch, also of the epochs before a resume.
        keras_history: the `keras.callbacks.History` that `Model.fit` would return. In a resumed run it also holds the
            epochs before.
    """

    model: Any
    summary: dict[str, Any]
    history: list[dict[str, float]]
    keras_history: Any


def finish_run(setup: RunSetup, actions: RunActions, progress: Progress) -> Result:
    """Restore the best model on all ranks; the chief writes `model.keras` and `summary.json`."""
    config, distribution = setup.config, setup.distribution
    best_step = actions.early_stopping.best_step
    if best_step is not None and best_step != progress.global_step and not actions.callbacks.replaced_weights:
        setup.model_state.restore(_load_best(setup, best_step))
    if not actions.callbacks.replaced_weights:
        setup.finalize_weights()
    summary = _summarize(setup, actions, progress)
    if not setup.was_complete:
        summary |= _figures_by_class(setup, actions)
    if distribution.group.is_chief:
        if setup.was_complete:
            summary = _summary_before(config.run) or summary
        with (
            required_write(config.run / SUMMARY_NAME, run=config.run),
            rewriting(config.run, MODEL_NAME, SUMMARY_NAME),
        ):
            run_directory.write_model(config.run, setup.trainable.model)
            actions.report.finish(summary)
    summary = json.loads(distribution.group.broadcast(json.dumps(summary).encode()))
    return Result(setup.trainable.model, summary, actions.history, actions.callbacks.history)


def _summary_before(run: Path) -> dict[str, Any] | None:
    """Return the summary that a finished run has written, unless it is damaged."""
    try:
        check_files(run, SUMMARY_NAME)
        return run_directory.read_summary(run)
    except CheckpointError as error:
        _LOG.warning("%s It is written again, without the figures of each class.", error)
        return None


def result_so_far(setup: RunSetup, actions: RunActions) -> Result:
    """Return the model as trained last, and no summary, for a run that a request to stop ends."""
    return Result(setup.trainable.model, {}, actions.history, actions.callbacks.history)


def _summarize(setup: RunSetup, actions: RunActions, progress: Progress) -> dict[str, Any]:
    best_metrics = actions.early_stopping.best_metrics
    mean_rate = progress.examples_trained / max(progress.train_seconds, 1e-9)
    return {
        "validation_accuracy": best_metrics.get("val_accuracy"),
        "validation_loss": best_metrics.get("val_loss"),
        "train_seconds": progress.train_seconds,
        "samples_per_second": actions.throughput.samples_per_second() or mean_rate,
        "num_replicas": setup.distribution.num_replicas,
        "strategy": setup.distribution.name,
        "epochs": progress.epoch,
        "global_steps": progress.global_step,
        "examples_trained": progress.examples_trained,
        "skipped_steps": progress.skipped_steps,
        "weights_sha256": setup.model_state.weights_digest(),
        "data_digest": setup.job.data_digest,
        "startup_seconds": actions.startup.seconds,
        "limit_batches": setup.config.limit_batches,
    }


def _figures_by_class(setup: RunSetup, actions: RunActions) -> dict[str, Any]:
    """Return figures of the validation data, and figures of each class if these fit into `summary.json`."""
    figures = validation_figures(setup, actions.step_flags) or {}
    too_many = len(figures.get("classes", ())) > MAX_SUMMARY_CLASSES
    left_out = ("confusion", "classes") if too_many else ("confusion",)
    return {name: value for name, value in figures.items() if name not in left_out}


def _load_best(setup: RunSetup, step: int) -> Checkpoint:
    """Return the chief's checkpoint of the best step, on every rank."""

    def load_on_chief() -> Checkpoint | None:
        directory = setup.config.run / CHECKPOINTS_NAME
        return load_best_step(directory, step) if setup.distribution.group.is_chief else None

    checkpoint = broadcast_checkpoint(setup.distribution, run_on_all_ranks(setup.distribution.group, load_on_chief))
    assert checkpoint is not None
    return checkpoint
