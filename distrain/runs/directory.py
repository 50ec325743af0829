"""The files of a run directory, and whether a run may resume in it.

Decides: which settings a resumed run must keep, and the names of the files. Never: trains, or judges a model.

    restored = open_run(config, resolved, vectorizer=None)      # a Checkpoint, or None for a new run
    settings, checkpoint = open_finished(Path("runs/1"))        # for evaluate and predict
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from distrain.config import TrainConfig, settings_of
from distrain.errors import CheckpointError, ConfigurationError
from distrain.file_names import CHECKPOINTS_NAME, CONFIG_NAME, MODEL_NAME, SUMMARY_NAME, VECTORIZER_NAME
from distrain.files import atomic_write, exclusive_lock, read_json_object, replace_folder, write_json
from distrain.runs.checkpoint import Checkpoint, checkpoint_path, list_checkpoints, load_checkpoint, newest_checkpoint

_LOG = logging.getLogger(__name__)

# A resumed run must keep the settings that decide its weights. It may change where, how fast and how long it trains.
_SETTINGS = {setting.name: setting for setting in settings_of(TrainConfig)}
_MAY_CHANGE = {name for name, setting in _SETTINGS.items() if setting.may_change}
_MAY_CHANGE |= {"num_replicas", "replica_batch_size"}

# Digests, which mean nothing to a user, and what differs with each digest.
_OF_DIGESTS = {"data_digest": "other data", "validation_digest": "other validation data, or without any"}

# How to keep a value that settings led to, by its name in `config.json`.
_CURES = {
    "validation_digest": "Validation chooses the best epoch: give the same validation data",
    "scheduled_steps": "The learning rate falls over these steps: give the same --epochs and the same global batch",
    "learning_rate_factor": "--scale-learning-rate multiplies by the number of replicas: give the same number",
}


def open_run(config: TrainConfig, resolved: Mapping[str, Any], *, vectorizer: Path | None) -> Checkpoint | None:
    """Make or reopen the run directory, and write its `config.json`.

    Args:
        config: Settings as the user gave them.
        resolved: Values that the settings led to: data digest, strategy, replicas, ...
        vectorizer: Folder that a new run copies for `predict`, or None.

    Returns:
        The checkpoint from which training resumes, or None for a new run.

    Raises:
        CheckpointError: the directory holds another run, or holds a run despite `--resume never`, or its checkpoints
            are damaged.
        ConfigurationError: the directory cannot be made or written.
    """
    run = config.run
    settings = {**_plain(config), **resolved}
    explicit = None if config.resume in ("auto", "never") else Path(config.resume)
    before = _read_json(run / CONFIG_NAME) if (run / CONFIG_NAME).is_file() else None
    try:
        if before is None and run.is_dir() and any(run.iterdir()):
            raise CheckpointError(
                f"{run} holds something that is not a run (it has no {CONFIG_NAME}). Choose another --run."
            )
        if before is not None and config.resume == "never":
            raise CheckpointError(f"{run} holds a run already, and --resume is never. Choose another --run.")
        has_begun = bool(list_checkpoints(run / CHECKPOINTS_NAME))
        if before is not None and has_begun:  # a run without a checkpoint may start over with other settings
            _check_same_run(run, before, settings)
        is_own = explicit is not None and explicit.resolve().parent == (run / CHECKPOINTS_NAME).resolve()
        if explicit and has_begun and not is_own:
            raise CheckpointError(
                f"{run} has checkpoints of its own, and --resume names {explicit}. Leave --resume out to go on in "
                f"{run}, or choose another --run to branch off."
            )
        restored = load_checkpoint(explicit) if explicit else newest_checkpoint(run / CHECKPOINTS_NAME)
        if restored is not None and restored.state.get("data_digest") != settings["data_digest"]:
            raise CheckpointError(f"{restored.path} was trained on other data, so its position does not apply here.")
        run.mkdir(parents=True, exist_ok=True)
        if explicit and restored is not None:
            best = load_best(explicit.parent, restored)
            if is_own:
                _remove_later(restored, run / CHECKPOINTS_NAME)
            else:
                for path in {restored.path, best.path}:
                    _copy_checkpoint(path, run / CHECKPOINTS_NAME)
        if vectorizer is not None and not has_begun:
            with replace_folder(run / VECTORIZER_NAME) as folder:
                shutil.copytree(vectorizer, folder, dirs_exist_ok=True)
        write_json(run / CONFIG_NAME, settings)
    except OSError as error:
        raise ConfigurationError(f"--run {run} cannot be used: {error}") from None
    return restored


def hold_run(run: Path) -> AbstractContextManager[None]:
    """Lock a run directory against other processes until the block ends.

    Raises (on entry):
        CheckpointError: another process trains in the directory.
    """
    busy = CheckpointError(
        f"another process trains in {run} already. Wait for it, or choose another --run. If the processes were "
        "meant to train together, their launcher was not recognized: use mpirun, horovodrun or srun."
    )
    return exclusive_lock(run, busy=busy)


def open_finished(run: Path) -> tuple[dict[str, Any], Checkpoint]:
    """Return the settings of a run and its best checkpoint.

    Raises:
        CheckpointError: `run` is not a run directory, or has no checkpoint that can be used.
    """
    if not (run / CONFIG_NAME).is_file():
        raise CheckpointError(f"{run} is not a run directory: it has no {CONFIG_NAME}. Make one with 'distrain train'.")
    settings = _read_json(run / CONFIG_NAME)
    newest = newest_checkpoint(run / CHECKPOINTS_NAME)
    if newest is None:
        raise CheckpointError(f"{run} has no checkpoint yet. Train for longer, or with --checkpoint-every.")
    return settings, load_best(run / CHECKPOINTS_NAME, newest)


def load_best(directory: Path, checkpoint: Checkpoint) -> Checkpoint:
    """Load the checkpoint that `checkpoint` records as the best so far, which may be `checkpoint` itself.

    Args:
        directory: Folder of the run's checkpoints.
        checkpoint: Checkpoint that records the best step.

    Raises:
        CheckpointError: the best checkpoint is damaged or gone.
    """
    best_step = (checkpoint.state.get("early_stopping") or {}).get("best_step")
    if best_step is None or best_step == checkpoint.state.get("global_step"):
        return checkpoint
    return load_checkpoint(checkpoint_path(directory, int(best_step)))


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
        return state["early_stopping"]["epochs_since"] >= config.patience > 0
    return reason == "callback" or (reason == "epochs" and state["epoch"] >= config.epochs)


def read_summary(run: Path) -> dict[str, Any] | None:
    """Return the summary of a finished run, or None if the run has not written one."""
    path = run / SUMMARY_NAME
    return _read_json(path) if path.is_file() else None


def write_model(run: Path, model: Any) -> None:
    """Write `model.keras` whole, or log a warning if Keras cannot write the model."""
    try:
        with atomic_write(run / MODEL_NAME, suffix=".keras") as tmp_path:
            model.save(tmp_path)
    except NotImplementedError:  # Keras cannot serialize the constructor's arguments
        _LOG.warning(
            f"{MODEL_NAME} is not written: {type(model).__name__} takes arguments, but has no get_config(). "
            f"Its weights are in {run / 'checkpoints'}."
        )


def _plain(config: TrainConfig) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(config).items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from None


def _check_same_run(run: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in now:
        value = before.get(name, _SETTINGS[name].default if name in _SETTINGS else None)
        if name in _MAY_CHANGE or value == now[name]:
            continue
        if name not in before and name == "validation_digest":  # a run of an earlier version
            continue
        difference = f"{name} = {_shown(name, value)}, not {_shown(name, now[name])}"
        raise CheckpointError(
            f"{run} was made with {_OF_DIGESTS.get(name, difference)}. "
            f"{_CURES.get(name, 'Give the same settings')} to go on, or choose another --run for a new one."
        )
    batches_before, batches_now = (of["num_replicas"] * of.get("accumulation_steps", 1) for of in (before, now))
    if now["batch_size"] is not None and batches_before != batches_now:
        raise CheckpointError(
            f"{run} was trained with {batches_before} replicas (x accumulation steps) of --batch-size "
            f"{now['batch_size']}. With {batches_now}, the global batch and so the model differ. Choose another --run, "
            f"with --global-batch-size {batches_before * before['replica_batch_size']} if the number of replicas is to "
            "vary."
        )


def _shown(name: str, value: Any) -> str:
    default = _SETTINGS[name].shown_default if name in _SETTINGS else ""
    return default if value is None and default else repr(value)


def _remove_later(checkpoint: Checkpoint, directory: Path) -> None:
    paths = list_checkpoints(directory)
    names = [path.name for path in paths]
    for path in paths[names.index(checkpoint.path.name) + 1 :]:  # training will write these steps again
        _LOG.warning("%s is removed: it is later than %s, from which training resumes.", path, checkpoint.path.name)
        shutil.rmtree(path)


def _copy_checkpoint(checkpoint: Path, directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    with replace_folder(directory / checkpoint.name) as folder:
        shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
