"""Opens a run directory to train in it: lock first, then read and judge, then write.

Decides: whether a run begins, resumes or is refused, and what a new run directory holds. Never: trains.

    with open_run(config, resolved, vectorizer=None) as restored:      # a Checkpoint, or None for a new run
        ...                                                            # no other job opens the directory here

A job may be killed between any two writes. `config.json` is the first file, so a folder with other files alone is no
run. The next start of the same command repeats each later write.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distrain.cluster.world import LAUNCH_ID
from distrain.config import TrainConfig
from distrain.errors import CheckpointError, ConfigurationError, DataError, DistrainError
from distrain.file_names import (
    CHECKPOINTS_NAME,
    CONFIG_NAME,
    EVENTS_NAME,
    LOCK_NAME,
    MANIFEST_NAME,
    METRICS_NAME,
    MODEL_NAME,
    STATUS_NAME,
    SUMMARY_NAME,
    VECTORIZER_NAME,
)
from distrain.files import DISK_FAULTS, copy_folder, describe, folder_digest, remove, replace_folder, write_json
from distrain.remote.path import RemotePath
from distrain.runs.checkpoint import (
    Checkpoint,
    checkpoint_path,
    list_checkpoints,
    newest_checkpoint,
    remove_checkpoints,
    step_of,
    tidy_checkpoints,
)
from distrain.runs.directory import read_settings
from distrain.runs.disk_room import unwritable
from distrain.runs.lock import check_held, hold_run
from distrain.runs.manifest import (
    cure_of,
    faults_in_run,
    load_own_checkpoint,
    missing_checkpoints,
    record_end,
    rewriting,
)
from distrain.runs.same_run import check_same_run
from distrain.runs.served import load_best

_LOG = logging.getLogger(__name__)

# What an earlier distrain, killed before it wrote `config.json`, or a reader of its status may have left.
_LEFTOVERS = {LOCK_NAME, VECTORIZER_NAME, EVENTS_NAME, STATUS_NAME}
_FILES = (CONFIG_NAME, MANIFEST_NAME, METRICS_NAME, STATUS_NAME, SUMMARY_NAME, MODEL_NAME)
_FOLDERS = (CHECKPOINTS_NAME, EVENTS_NAME, VECTORIZER_NAME)
_TEMPORARY = tuple(f".{name}." for name in (CONFIG_NAME, VECTORIZER_NAME, STATUS_NAME))


@contextmanager
def open_run(
    config: TrainConfig, resolved: Mapping[str, Any], *, vectorizer: Path | None
) -> Iterator[Checkpoint | None]:
    """Make or reopen the run directory, hold it until the block ends, and write its `config.json`.

    Args:
        config: Settings as the user gave them.
        resolved: Values that the settings led to: data digest, strategy, replicas, ...
        vectorizer: Folder that the run keeps a copy of for `predict`, or None.

    Yields:
        The checkpoint from which training resumes, or None for a new run.

    Raises (on entry):
        CheckpointError: another process trains in the directory; the directory holds another run, or holds a run
            despite `--resume never`; its checkpoints are damaged; or the disk is full or fails.
        ConfigurationError: the directory cannot be made or written.
    """
    run, settings = config.run, {"launch_id": os.environ.get(LAUNCH_ID) or None, **_plain(config), **resolved}
    is_new = not os.path.lexists(run)
    with ExitStack() as held:
        try:
            _refuse_foreign(run)
            held.enter_context(hold_run(run))
            _refuse_planted(run)
            _tidy(run)
            try:
                restored = _judge(config, settings)
            except DistrainError:
                if is_new:
                    _discard(run)
                raise
            _write(config, settings, restored, vectorizer)
        except OSError as error:
            if error.errno in DISK_FAULTS:
                raise unwritable(run, error, run=run) from None
            raise ConfigurationError(f"--run {run} cannot be used: {describe(error)}") from None
        try:
            yield restored
        finally:
            _record_end(run)


def _record_end(run: Path) -> None:
    """Record the last lines of the log, unless the run was removed or taken over, which ended the job."""
    try:
        check_held(run)
        record_end(run)
    except CheckpointError:
        return
    except OSError as error:
        _LOG.warning("%s. 'distrain verify' compares the files as of the last checkpoint.", describe(error))


def _refuse_foreign(run: Path) -> None:
    """Refuse a folder that is not empty and no run, before anything is written there."""
    if not run.is_dir() or (run / CONFIG_NAME).is_file():
        return
    for path in sorted(run.iterdir()):
        if path.name not in _LEFTOVERS and not path.name.startswith(_TEMPORARY):
            raise CheckpointError(
                f"{run} holds something that is not a run ({path.name!r}, but no {CONFIG_NAME}). Choose another --run."
            )


def _refuse_planted(run: Path) -> None:
    """Refuse links and other strange files in the place of a run's files, because writes would go through them."""
    for name in (*_FILES, *_FOLDERS):
        path = run / name
        if not os.path.lexists(path):
            continue
        mode = path.lstat().st_mode
        if not (stat.S_ISDIR(mode) if name in _FOLDERS else stat.S_ISREG(mode)):
            kind = "folder" if name in _FOLDERS else "regular file"
            raise CheckpointError(
                f"{path} is a link or no {kind}, so nothing is written through it. Remove it, or choose another --run."
            )


def _tidy(run: Path) -> None:
    """Remove what killed writes have left, and give replaced checkpoints their names back."""
    for name in (*_FILES, *_FOLDERS):
        for leftover in run.glob(f".{name}.*"):
            remove(leftover)
    tidy_checkpoints(run / CHECKPOINTS_NAME)


def _check_files(run: Path) -> None:
    """Refuse damaged settings, and warn of other damage that training mends or does not need."""
    checkpoints = run / CHECKPOINTS_NAME
    try:
        faults = list(faults_in_run(run, CONFIG_NAME, METRICS_NAME, SUMMARY_NAME, MODEL_NAME))
        missing = missing_checkpoints(run)
    except CheckpointError:
        return  # the manifest is damaged, and is written again with a warning
    for name, fault in faults:
        if name == CONFIG_NAME:
            raise CheckpointError(f"{run / name} {fault}. {cure_of(run, name)}")
        what = "the report may show wrong figures" if name == METRICS_NAME else "it is written again at the end"
        _LOG.warning("%s %s. Training goes on, and %s.", run / name, fault, what)
    for step in missing:
        _LOG.warning(
            "%s is missing. Training goes on from the newest checkpoint that is there.",
            checkpoint_path(checkpoints, step),
        )


def _judge(config: TrainConfig, settings: Mapping[str, Any]) -> Checkpoint | None:
    """Return the checkpoint to resume from; reads only."""
    run, checkpoints = config.run, config.run / CHECKPOINTS_NAME
    _check_files(run)
    before = read_settings(run) if (run / CONFIG_NAME).is_file() else None
    is_restart = before is not None and _is_of_same_launch(before, settings)
    if before is not None and config.resume == "never" and not is_restart:
        raise CheckpointError(f"{run} holds a run already, and --resume is never. Choose another --run.")
    has_begun = bool(list_checkpoints(checkpoints))
    if before is not None and has_begun:  # a run without a checkpoint may start over with other settings
        check_same_run(run, before, settings)
    explicit, is_own = _named_checkpoint(config), _is_own(config)
    is_repeated = before is not None and before.get("resume") == config.resume
    if explicit and has_begun and not is_own and not is_repeated:
        raise CheckpointError(
            f"{run} has checkpoints of its own, and --resume names {explicit}. Leave --resume out to go on in "
            f"{run}, or choose another --run to branch off."
        )
    if explicit and has_begun and (is_restart or (is_repeated and not (is_own and explicit.exists()))):
        explicit = None  # the same command started from there before, and now goes on
    restored = load_own_checkpoint(explicit) if explicit else newest_checkpoint(checkpoints, load_own_checkpoint)
    if restored is not None and restored.state.get("data_digest") != settings["data_digest"]:
        raise CheckpointError(f"{restored.path} was trained on other data, so its position does not apply here.")
    return restored


def _write(
    config: TrainConfig, settings: Mapping[str, Any], restored: Checkpoint | None, vectorizer: Path | None
) -> None:
    run, checkpoints = config.run, config.run / CHECKPOINTS_NAME
    is_own = restored is not None and restored.path.parent.resolve() == checkpoints.resolve()
    with rewriting(run, CONFIG_NAME, VECTORIZER_NAME, CHECKPOINTS_NAME, begins=True):
        if restored is not None and is_own and _named_checkpoint(config):
            _remove_later(restored, checkpoints)  # first, as a restart of the launch in `config.json` takes the newest
        write_json(run / CONFIG_NAME, settings)
        if restored is not None and not is_own:
            _branch_off(restored, checkpoints)
        if vectorizer is not None:
            _keep_vectorizer(vectorizer, run / VECTORIZER_NAME, has_begun=restored is not None)


def _is_of_same_launch(before: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Return whether a launcher starts its job again after this launch had opened the run."""
    return settings.get("launch_id") is not None and before.get("launch_id") == settings["launch_id"]


def _named_checkpoint(config: TrainConfig) -> Path | None:
    return None if config.resume in ("auto", "never") else Path(config.resume)


def _is_own(config: TrainConfig) -> bool:
    explicit = _named_checkpoint(config)
    return explicit is not None and explicit.resolve().parent == (config.run / CHECKPOINTS_NAME).resolve()


def _branch_off(restored: Checkpoint, checkpoints: Path) -> None:
    """Copy the checkpoint of another run, and the best one that it names, both or none."""
    best = load_best(restored.path.parent, restored)
    with replace_folder(checkpoints) as folder:
        for path in {restored.path, best.path}:
            (folder / path.name).mkdir()
            copy_folder(path, folder / path.name)


def _remove_later(checkpoint: Checkpoint, directory: Path) -> None:
    later = [path for path in list_checkpoints(directory) if step_of(path) > step_of(checkpoint.path)]
    for path in later:  # training will write these steps again
        _LOG.warning("%s is removed: it is later than %s, from which training resumes.", path, checkpoint.path.name)
    remove_checkpoints(later)


def _keep_vectorizer(vectorizer: Path, copy: Path, *, has_begun: bool) -> None:
    """Copy the vectorizer of the data unless the run has an equal copy already."""
    if copy.is_dir() and not copy.is_symlink():
        with contextlib.suppress(DataError):  # a file of the copy cannot be read
            if folder_digest(copy) == folder_digest(vectorizer):
                return
    if has_begun:
        _LOG.warning("%s was missing or damaged. It is copied again from %s.", copy, vectorizer)
    with replace_folder(copy) as folder:
        copy_folder(vectorizer, folder)


def _discard(run: Path) -> None:
    """Remove the directory that a refused command has just made."""
    with contextlib.suppress(OSError):
        (run / LOCK_NAME).unlink()
        run.rmdir()


def _plain(config: TrainConfig) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, Path | RemotePath) else value for name, value in asdict(config).items()
    }
