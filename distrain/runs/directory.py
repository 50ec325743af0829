"""The files of a run directory: its settings and its results.

Decides: what a run directory must hold to be used, and whether its training is complete. Never: trains, or judges a
model.

    settings = read_settings(Path("runs/1"))        # for evaluate, predict and a resume
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from distrain.config import TrainConfig
from distrain.errors import CheckpointError, ConfigurationError
from distrain.file_names import CONFIG_NAME, MODEL_NAME, SUMMARY_NAME
from distrain.files import atomic_write, read_json_object
from distrain.runs.checkpoint import Checkpoint
from distrain.runs.disk_room import required_write

_LOG = logging.getLogger(__name__)


def read_settings(run: Path) -> dict[str, Any]:
    """Return the settings of a run.

    Raises:
        CheckpointError: `run` is not a run directory, or its settings are damaged.
    """
    if not (run / CONFIG_NAME).is_file():
        raise CheckpointError(f"{run} is not a run directory: it has no {CONFIG_NAME}. Make one with 'distrain train'.")
    return _read_json(run / CONFIG_NAME)


def config_of(settings: Mapping[str, Any]) -> TrainConfig:
    """Return the `TrainConfig` inside a run's settings.

    Raises:
        CheckpointError: the settings do not make a `TrainConfig`.
    """
    names = {field.name for field in fields(TrainConfig)}
    try:
        return TrainConfig(**{name: value for name, value in settings.items() if name in names})
    except (TypeError, ConfigurationError) as error:
        raise CheckpointError(f"{CONFIG_NAME} does not hold the settings of a run: {error}") from None


def is_finished(config: TrainConfig, checkpoint: Checkpoint) -> bool:
    """Return whether training was complete at a checkpoint and `config` asks for no more."""
    state = checkpoint.state
    reason = state.get("finished")
    if config.max_steps is not None and state["global_step"] >= config.max_steps:
        return bool(reason) or state["epoch_steps"] == 0  # else the part of an epoch is not evaluated yet
    if reason == "--max-time":
        return config.max_time is not None and state.get("run_seconds", 0.0) >= config.max_time
    if reason == "early stopping":
        return (state.get("early_stopping") or {}).get("epochs_since", 0) >= config.patience > 0
    return reason == "callback" or (reason == "epochs" and state["epoch"] >= config.epochs)


def read_summary(run: Path) -> dict[str, Any] | None:
    """Return the summary of a finished run, or None if the run has not written one."""
    path = run / SUMMARY_NAME
    return _read_json(path) if path.is_file() else None


def write_model(run: Path, model: Any) -> None:
    """Write `model.keras` whole, or log a warning if Keras cannot write the model.

    Raises:
        CheckpointError: the system refused a write.
    """
    try:
        with required_write(run / MODEL_NAME, run=run), atomic_write(run / MODEL_NAME, suffix=".keras") as tmp_path:
            model.save(tmp_path)
    except NotImplementedError as error:  # Keras cannot describe a part of the model, or of its optimizer
        reason = " ".join(str(error).partition(". ")[0].split()).rstrip(".")
        _LOG.warning(f"{MODEL_NAME} is not written. {reason}. The weights of the model are in {run / 'checkpoints'}.")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from None
