"""The manifest of a run directory: size and SHA-256 of each file that a later command relies on.

Decides: which files are recorded, and when a record counts. Never: what a file means, or whether a run may go on.

    with rewriting(run, CONFIG_NAME):        # a kill in the block leaves no record, and so no false alarm
        write_json(run / CONFIG_NAME, settings)
    check_files(run, CONFIG_NAME)            # raises CheckpointError if the file is not what was written

`manifest.json` also lists the checkpoints, and records the manifest of each. So a checkpoint of another run is noticed,
although its own files fit together. The file holds its own digest, and its bytes must be those that distrain writes.
While a job trains, the record of `metrics.jsonl` covers the bytes up to the last checkpoint. The end of the job adds
its status and TensorBoard's files.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from distrain.errors import CheckpointError
from distrain.file_names import (
    CHECKPOINTS_NAME,
    CONFIG_NAME,
    EVENTS_NAME,
    MANIFEST_NAME,
    METRICS_NAME,
    MODEL_NAME,
    STATUS_NAME,
    SUMMARY_NAME,
    VECTORIZER_NAME,
)
from distrain.files import json_bytes, read_json_object, sync, write_json
from distrain.fingerprints import Fingerprint, GrowingFile, digest_of, fault_of, fingerprint_of
from distrain.runs.checkpoint import Checkpoint, checkpoint_path, list_checkpoints, load_checkpoint, step_of

_LOG = logging.getLogger(__name__)

FORMAT_VERSION = 1
_RECORDED = (CONFIG_NAME, VECTORIZER_NAME, METRICS_NAME, SUMMARY_NAME, MODEL_NAME)  # in a run without a manifest
_CHANGING = (METRICS_NAME, EVENTS_NAME, STATUS_NAME)  # while a job trains
_AGAIN = "The training command writes it again."
_CURES = {
    VECTORIZER_NAME: "The training command copies it again from the data.",
    SUMMARY_NAME: _AGAIN,
    MODEL_NAME: _AGAIN,
}


@dataclass(frozen=True)
class Manifest:
    """What a run directory held when its manifest was written.

    Attributes:
        checkpoints: Global steps of the checkpoints, ascending; None while a job removes or copies some.
        files: Record of each file by its path within the run; None while a job replaces the file.
    """

    checkpoints: tuple[int, ...] | None
    files: Mapping[str, Fingerprint | None]


def read_manifest(run: Path) -> Manifest | None:
    """Return the manifest of a run, or None if the run has none.

    Raises:
        CheckpointError: the manifest is damaged, or cannot be read.
    """
    path = run / MANIFEST_NAME
    try:
        content = read_json_object(path)
        if content["digest"] != digest_of(content) or path.read_bytes() != json_bytes(content):
            raise ValueError("its digest does not fit")
        if content["format"] != "distrain-run" or content["version"] != FORMAT_VERSION:
            raise ValueError("it is of another format or version")
        files = {name: None if record is None else Fingerprint(**record) for name, record in content["files"].items()}
        if odd := next((name for name in files if not _is_within(name)), None):
            raise ValueError(f"it names {odd!r}")
        steps = content["checkpoints"]
        return Manifest(None if steps is None else tuple(map(int, steps)), files)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(
            f"{path} is damaged ({type(error).__name__}: {error}). Copy the run anew, or start the training command "
            f"again, which checks the checkpoints and writes {MANIFEST_NAME} again."
        ) from None


@contextmanager
def rewriting(run: Path, *names: str, begins: bool = False) -> Iterator[None]:
    """Take back the records of some files while the block writes them, and record the files when it ends.

    Args:
        run: Run directory that this process holds.
        names: Files or folders that the block writes.
        begins: Whether a job begins with the block. From now on its log grows, and its status has no record.

    Raises:
        OSError: the manifest cannot be written.
    """
    steps = None if CHECKPOINTS_NAME in names else _steps(run)
    names = tuple(name for name in names if name != CHECKPOINTS_NAME)  # a job removes or adds whole checkpoints
    before = _known(run)
    if begins:
        before = {name: _growing(name, record) for name, record in before.items() if name != STATUS_NAME}
    kept = {name: record for name, record in before.items() if not _matches(name, names)}
    taken_back = dict.fromkeys(name for name in before if name not in kept)
    if any(before[name] for name in taken_back):  # never in a new run, whose first file is `config.json`
        _write(run, kept | taken_back, checkpoints=steps)
    yield
    _write(run, kept | _records(run, names), checkpoints=_steps(run))


def take_back_checkpoint(run: Path, step: int) -> None:
    """Take back the record of a checkpoint, before the job saves the same step once more.

    Raises:
        OSError: the manifest cannot be written; the records before stay true.
    """
    known, name = _known(run), _checkpoint_record(step)
    if known.get(name):
        _write(run, known | {name: None}, checkpoints=_steps(run))


def record_growth(run: Path, log: GrowingFile, *, saved: int | None = None) -> None:
    """Record what `metrics.jsonl` holds by now, and which checkpoints there are.

    Args:
        run: Run directory that this process holds.
        log: The run's `metrics.jsonl`.
        saved: Step of the checkpoint that the job has just saved.

    Raises:
        OSError: the manifest cannot be written; the records before stay true.
    """
    record = log.fingerprint()
    grown = {} if record is None else {METRICS_NAME: record}
    outdated = None if saved is None else _checkpoint_record(saved)
    known = {name: record for name, record in _known(run).items() if name != outdated}
    _write(run, known | grown, checkpoints=_steps(run))


def record_end(run: Path) -> None:
    """Record the files that a job wrote all the time, now that the job ends.

    Raises:
        OSError: the manifest cannot be written; the records before stay true.
    """
    ended = _records(run, _CHANGING)
    for name in ended:
        sync(run / name)
    _write(run, _known(run) | ended, checkpoints=_steps(run))


def check_files(run: Path, *names: str) -> None:
    """Compare some files or folders of a run with their records, where there are records.

    Raises:
        CheckpointError: a file is missing or damaged, or the manifest is.
    """
    for name, fault in faults_in_run(run, *names):
        raise CheckpointError(f"{run / name} {fault}. {cure_of(run, name)}")


def faults_in_run(run: Path, *names: str) -> Iterator[tuple[str, str]]:
    """Yield name and fault of each recorded file among `names` that differs from its record; a job may write meanwhile.

    Raises:
        CheckpointError: the manifest is damaged.
    """
    manifest = read_manifest(run)
    if manifest is None and list_checkpoints(run / CHECKPOINTS_NAME):
        _tell_unchecked(run)
    for name in manifest.files if manifest else ():
        if not _matches(name, names):
            continue
        while manifest and (record := manifest.files.get(name)):
            fault = fault_of(run / name, record)
            manifest = read_manifest(run) if fault else manifest
            if fault and manifest and manifest.files.get(name) == record:  # else a job has replaced the file meanwhile
                yield name, fault
            if not fault or (manifest and manifest.files.get(name) == record):
                break


def load_own_checkpoint(path: Path) -> Checkpoint:
    """Load a checkpoint, and compare it with the record of its run.

    Raises:
        CheckpointError: the checkpoint cannot be used, or is not the checkpoint that its run saved.
    """
    checkpoint = load_checkpoint(path)
    if _is_foreign(path):
        raise CheckpointError(
            f"{path} is not the checkpoint that its run saved: it belongs to another run, or is an older save."
        )
    return checkpoint


def _is_foreign(path: Path) -> bool:
    run = path.parent.parent
    try:
        has_record = read_manifest(run) is not None
        faults = list(faults_in_run(run, f"{CHECKPOINTS_NAME}/{path.name}")) if has_record else []
    except CheckpointError:  # a damaged manifest is told where the run is opened
        return False
    return bool(faults) and path.is_dir()  # else the job that trains has removed it meanwhile


def cure_of(run: Path, name: str) -> str:
    """Return what a user can do about a damaged file of a run."""
    newest = list_checkpoints(run / CHECKPOINTS_NAME)[-1:]
    if name == CONFIG_NAME and newest:
        return f"Copy it anew, or train into another --run with --resume {newest[0]}."
    return f"Copy it anew. {_CURES.get(PurePosixPath(name).parts[0], '')}".rstrip()


def missing_checkpoints(run: Path) -> list[int]:
    """Return the steps of the recorded checkpoints that are gone, although the job has saved none since.

    Raises:
        CheckpointError: the manifest is damaged.
    """
    manifest = read_manifest(run)
    recorded = (manifest and manifest.checkpoints) or ()
    found = _steps(run)
    return sorted(set(recorded) - set(found)) if max(found, default=-1) <= max(recorded, default=-1) else []


@cache
def _tell_unchecked(run: Path) -> None:
    _LOG.warning(
        "%s has no %s: an earlier distrain made it, or somebody removed the file. Only its checkpoints are checked.",
        run,
        MANIFEST_NAME,
    )


def _known(run: Path) -> dict[str, Fingerprint | None]:
    """Return the records of a run. Without a usable manifest, record its files as they are."""
    try:
        manifest = read_manifest(run)
    except CheckpointError as error:
        _LOG.warning("%s It is written again, for the files as they are.", error)
        manifest = None
    return dict(manifest.files) if manifest else dict(_records(run, _RECORDED))


def _growing(name: str, record: Fingerprint | None) -> Fingerprint | None:
    return replace(record, grows=True) if record and name == METRICS_NAME else record


def _records(run: Path, names: Iterable[str]) -> dict[str, Fingerprint | None]:
    """Return the records of files, and of files in folders, as they are now."""
    paths = [path for name in names if name != CHECKPOINTS_NAME for path in (*(run / name).glob("*"), run / name)]
    return {path.relative_to(run).as_posix(): fingerprint_of(path) for path in paths if path.is_file()}


def _steps(run: Path) -> list[int]:
    return [step_of(path) for path in list_checkpoints(run / CHECKPOINTS_NAME)]


def _write(run: Path, files: Mapping[str, Fingerprint | None], *, checkpoints: list[int] | None) -> None:
    """Write the manifest. A checkpoint without a record gets one, as it is now."""
    records = {name: record for name, record in files.items() if not _matches(name, [CHECKPOINTS_NAME])}
    for name in map(_checkpoint_record, _steps(run)):
        if name in files:
            records[name] = files[name]
        elif (run / name).is_file():
            records[name] = fingerprint_of(run / name)
    content: dict[str, Any] = {
        "format": "distrain-run",
        "version": FORMAT_VERSION,
        "checkpoints": checkpoints,
        "files": {name: record and record.as_json() for name, record in sorted(records.items())},
    }
    write_json(run / MANIFEST_NAME, content | {"digest": digest_of(content)})


def _checkpoint_record(step: int) -> str:
    return (checkpoint_path(Path(CHECKPOINTS_NAME), step) / MANIFEST_NAME).as_posix()


def _matches(name: str, names: Iterable[str]) -> bool:
    return any(name == each or name.startswith(f"{each}/") for each in names)


def _is_within(name: str) -> bool:
    """Whether `name` stays within the run, because a hostile manifest must not make distrain read other files."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and len(path.parts) <= 3 and "\0" not in name
