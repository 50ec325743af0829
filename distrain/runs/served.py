"""Which checkpoint of a run serves: the best, or a checkpoint that a user names.

Decides: where the best step is recorded, and the error if its checkpoint cannot be used. Never: takes another
checkpoint in its place.

    checkpoint = load_served(Path("runs/1"))
    checkpoint = load_served(Path("runs/1"), "step-00001200")
"""

from __future__ import annotations

import re
from pathlib import Path

from distrain.errors import CheckpointError
from distrain.file_names import CHECKPOINTS_NAME
from distrain.runs.checkpoint import (
    Checkpoint,
    checkpoint_path,
    find_checkpoint,
    list_checkpoints,
    step_of,
)
from distrain.runs.manifest import load_own_checkpoint, missing_checkpoints

_MAX_TRIES = 5  # a job that trains removes outdated checkpoints, which this process may have begun to read
_NEWEST = " The newest checkpoint tells which one is the best."


def load_served(run: Path, name: str | None = None) -> Checkpoint:
    """Load the best checkpoint of a run, or the checkpoint of this name or path; a job may train meanwhile.

    Raises:
        CheckpointError: the checkpoint is damaged or missing; the message names those that can be used.
    """
    directory = run / CHECKPOINTS_NAME
    for _ in range(_MAX_TRIES - 1):
        before = list_checkpoints(directory)
        try:
            return _load_present(run, name)
        except CheckpointError:
            if list_checkpoints(directory) == before:
                raise
    return _load_present(run, name)


def _load_present(run: Path, name: str | None) -> Checkpoint:
    directory = run / CHECKPOINTS_NAME
    if name is not None:
        found = re.fullmatch(r"step-(\d+)", name)
        return _load(find_checkpoint(directory, int(found[1])) if found else Path(name), directory, "")
    paths = list_checkpoints(directory)
    missing = missing_checkpoints(run)
    if missing and missing[-1] > max(map(step_of, paths), default=-1):
        path = checkpoint_path(directory, missing[-1])
        raise CheckpointError(f"{path} is missing.{_NEWEST} {_choice(directory, path)}")
    if not paths:
        raise CheckpointError(f"{run} has no checkpoint yet. Train for longer, or with --checkpoint-every.")
    return load_best(directory, _load(paths[-1], directory, _NEWEST))


def load_best(directory: Path, checkpoint: Checkpoint) -> Checkpoint:
    """Load the checkpoint that `checkpoint` records as the best so far, which may be `checkpoint` itself.

    Args:
        directory: Folder of the run's checkpoints.
        checkpoint: Checkpoint that records the best step.

    Raises:
        CheckpointError: the best checkpoint is damaged or gone; the message names those that can be used.
    """
    best_step = (checkpoint.state.get("early_stopping") or {}).get("best_step")
    if best_step is None or best_step == checkpoint.state.get("global_step"):
        return checkpoint
    return load_best_step(directory, int(best_step))


def load_best_step(directory: Path, step: int) -> Checkpoint:
    """Load the checkpoint of the best step.

    Raises:
        CheckpointError: the checkpoint is damaged or gone; the message names those that can be used.
    """
    return _load(find_checkpoint(directory, step), directory, " It is the best checkpoint of the run.")


def _load(path: Path, directory: Path, meaning: str) -> Checkpoint:
    try:
        return load_own_checkpoint(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}{meaning} {_choice(directory, path)}") from None


def _choice(directory: Path, damaged: Path) -> str:
    usable = [path.name for path in list_checkpoints(directory) if path != damaged and _is_usable(path)]
    if not usable:
        return "No other checkpoint of the run can be used. Copy the run anew, or train again."
    return (
        f"Copy it anew, or choose another with --checkpoint of 'distrain evaluate' and 'distrain predict': "
        f"{', '.join(usable)}."
    )


def _is_usable(path: Path) -> bool:
    try:
        load_own_checkpoint(path)
    except CheckpointError:
        return False
    return True
