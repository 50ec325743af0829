"""Compares every file of a run directory with its record, checkpoints included.

Decides: which files belong to a run, and which of them have no record. Never: builds a model.

    findings = verify_run(Path("runs/1"))
    findings.faults                              # {"vectorizer/vectorizer.json": "was changed: ..."}
"""

from __future__ import annotations

from pathlib import Path

from distrain.errors import CheckpointError
from distrain.file_names import (
    CHECKPOINTS_NAME,
    CONFIG_NAME,
    EVENTS_NAME,
    LOCK_NAME,
    MANIFEST_NAME,
    REPORT_NAME,
    STATUS_NAME,
)
from distrain.files import read_json_object
from distrain.fingerprints import Findings, Fingerprint, digest_of, fault_of
from distrain.runs.checkpoint import (
    ARRAYS_NAME,
    STATE_NAME,
    checkpoint_path,
    list_checkpoints,
    step_of,
)
from distrain.runs.manifest import Manifest, faults_in_run, load_own_checkpoint, missing_checkpoints, read_manifest

_WITHOUT_RECORD = {
    EVENTS_NAME: "it is recorded when its job ends",
    LOCK_NAME: "it names the job that holds the run",
    REPORT_NAME: "'distrain report' writes it again",
    STATUS_NAME: "it is recorded when its job ends",
}


def is_run(directory: Path) -> bool:
    """Whether a folder is a run directory, or was one before it lost its settings."""
    if step_of(directory) >= 0:  # a checkpoint also has a manifest
        return False
    return any((directory / name).exists() for name in (CONFIG_NAME, MANIFEST_NAME, CHECKPOINTS_NAME))


def verify_run(run: Path) -> Findings:
    """Return what differs from the manifests of a run and of its checkpoints."""
    faults, checked = {}, [MANIFEST_NAME]
    manifest, recorded = None, dict[str, Fingerprint | None]()
    try:
        manifest = read_manifest(run)
        if manifest is None:
            faults[MANIFEST_NAME] = "is missing: an earlier distrain made the run, or somebody removed the file"
        recorded = {name: record for name, record in (manifest.files if manifest else {}).items() if _is_of_run(name)}
        faults |= dict(faults_in_run(run, *recorded)) if recorded else {}
        for step in missing_checkpoints(run):
            faults[checkpoint_path(Path(CHECKPOINTS_NAME), step).as_posix()] = "is missing"
    except CheckpointError as error:
        faults[MANIFEST_NAME] = str(error)
    checked += [name for name, record in recorded.items() if record]
    for path in list_checkpoints(run / CHECKPOINTS_NAME):
        folder = path.relative_to(run).as_posix()
        checked += [f"{folder}/{name}" for name in (MANIFEST_NAME, ARRAYS_NAME, STATE_NAME)]
        faults |= {f"{folder}/{name}": fault for name, fault in _faults_of_checkpoint(path).items()}
    present = {path.relative_to(run).as_posix() for path in run.rglob("*") if not path.is_dir()}
    rest = sorted(present - set(checked))
    reasons = {name: _WITHOUT_RECORD.get(Path(name).parts[0], "") for name in rest}
    unfinished = {name: "a job that replaces it has not ended" for name in rest if name in _replaced(manifest)}
    return Findings(
        files=tuple(checked),
        bytes=sum((run / name).stat().st_size for name in checked if (run / name).is_file()),
        faults=faults,
        unknown=tuple(name for name in rest if not reasons[name] and name not in unfinished),
        unchecked={name: reason for name, reason in (reasons | unfinished).items() if reason},
    )


def _is_of_run(name: str) -> bool:
    """Whether a record is not of a checkpoint, which is compared with its own manifest too."""
    return not name.startswith(f"{CHECKPOINTS_NAME}/")


def _replaced(manifest: Manifest | None) -> set[str]:
    return {name for name, record in manifest.files.items() if record is None} if manifest else set()


def _faults_of_checkpoint(path: Path) -> dict[str, str]:
    """Return the fault of each damaged file of a checkpoint."""
    faults = _faults_of_files(path)
    if not faults:
        try:
            load_own_checkpoint(path)
        except CheckpointError as error:
            faults = {MANIFEST_NAME: f"does not fit: {error}"}
    return faults if path.is_dir() else {}  # else the job that trains has removed it meanwhile


def _faults_of_files(path: Path) -> dict[str, str]:
    """Return the fault of each file that differs from the checkpoint's own manifest."""
    try:
        content = read_json_object(path / MANIFEST_NAME)
        if content.get("digest", digest_of(content)) != digest_of(content):
            return {MANIFEST_NAME: "was changed: its digest does not fit"}
        if content["step"] != step_of(path):
            return {MANIFEST_NAME: f"belongs to step {content['step']}"}
        records = content["files"]
        files = {name: Fingerprint(**records[name]) for name in (ARRAYS_NAME, STATE_NAME)}
    except FileNotFoundError:
        return {MANIFEST_NAME: "is missing"}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {MANIFEST_NAME: f"is damaged ({type(error).__name__}: {error})"}
    return {name: fault for name, record in files.items() if (fault := fault_of(path / name, record))}
