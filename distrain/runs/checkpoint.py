"""Saves, loads and retains checkpoints. A checkpoint is whole or absent, and nothing in it can run code.

Decides: the files of a checkpoint, which checkpoint is the newest usable one, and which are kept. Never: what the
state means, or when it is saved.

    path = save_checkpoint(run / "checkpoints", 1200, arrays, state)
    checkpoint = newest_checkpoint(run / "checkpoints")
    checkpoint.arrays["model/0000"], checkpoint.state["epoch"]

`step-NNNNNNNN/` holds `arrays.safetensors`, `state.json` and, written last, `manifest.json` with the size and SHA-256
of both. `files.replace_folder` makes the folder appear whole. Where the file system cannot exchange two names, a kill
may leave a replaced checkpoint under the name `.step-NNNNNNNN.old` alone. All functions here find it there.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, load_file, save

from distrain.array_files import save_safetensors
from distrain.errors import CheckpointError
from distrain.file_names import MANIFEST_NAME
from distrain.files import json_bytes, make_folder, naming, read_json_object, remove, replace_folder
from distrain.fingerprints import Fingerprint, digest_of, fingerprint_of, size_fault
from distrain.runs.state_rules import odd_value

_LOG = logging.getLogger(__name__)

FORMAT_VERSION = 1
ARRAYS_NAME = "arrays.safetensors"
STATE_NAME = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        path: Folder of the checkpoint.
        arrays: Arrays by name.
        state: JSON values by name.
    """

    path: Path
    arrays: Mapping[str, np.ndarray]
    state: Mapping[str, Any]


def checkpoint_path(directory: Path, step: int) -> Path:
    """Return the folder of the checkpoint at a global step."""
    return directory / f"step-{step:08d}"


def save_checkpoint(
    directory: Path,
    step: int,
    arrays: Mapping[str, np.ndarray],
    state: Mapping[str, Any],
    after_piece: Callable[[], None] = lambda: None,
) -> Path:
    """Write a checkpoint, or replace the checkpoint of the same step.

    Args:
        directory: Folder of all checkpoints; made if absent.
        step: Global step, which names the checkpoint.
        arrays: Arrays by name.
        state: JSON values by name.
        after_piece: Called after each piece of the arrays, so that a thread can pause.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: the checkpoint cannot be written; nothing new remains then.
    """
    make_folder(directory)
    final = checkpoint_path(directory, step)
    with replace_folder(final) as folder:
        written = save_safetensors(folder / ARRAYS_NAME, arrays, after_piece)
        _write(folder / STATE_NAME, state)
        _write(folder / MANIFEST_NAME, _manifest(step, written, fingerprint_of(folder / STATE_NAME)))
    return final


def _manifest(step: int, arrays: Fingerprint, state: Fingerprint) -> dict[str, Any]:
    """Return the manifest for the two files of a checkpoint."""
    files = {ARRAYS_NAME: arrays.as_json(), STATE_NAME: state.as_json()}
    content = {"format": "distrain-checkpoint", "version": FORMAT_VERSION, "step": step, "files": files}
    return content | {"digest": digest_of(content)}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with naming(path):
        path.write_bytes(json_bytes(content))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint and check it against its manifest.

    Raises:
        CheckpointError: the checkpoint is missing, truncated, changed, or of another version.
    """
    try:
        manifest = read_json_object(path / MANIFEST_NAME)
        if manifest["format"] != "distrain-checkpoint" or manifest["version"] != FORMAT_VERSION:
            raise CheckpointError(f"{path} has another format or version than this distrain reads.")
        if manifest.get("digest", digest_of(manifest)) != digest_of(manifest):
            raise CheckpointError(f"{path / MANIFEST_NAME} is changed: its digest does not fit.")
        step = manifest["step"] if step_of(path) < 0 else step_of(path)
        for name in (ARRAYS_NAME, STATE_NAME):
            if fault := size_fault(path / name, Fingerprint(**manifest["files"][name])):
                raise CheckpointError(f"{path / name} {fault}.")
        now = _manifest(step, fingerprint_of(path / ARRAYS_NAME), fingerprint_of(path / STATE_NAME))
        for name in (ARRAYS_NAME, STATE_NAME):
            if now["files"][name]["sha256"] != manifest["files"][name]["sha256"]:
                raise CheckpointError(f"{path / name} is cut or changed: its checksum does not fit.")
        if "digest" not in manifest:  # an earlier distrain wrote none
            del now["digest"]
        if (path / MANIFEST_NAME).read_bytes() != json_bytes(now):
            raise CheckpointError(f"{path / MANIFEST_NAME} is changed: it does not describe the checkpoint beside it.")
        checkpoint = Checkpoint(path, load_file(path / ARRAYS_NAME), read_json_object(path / STATE_NAME))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a whole checkpoint ({type(error).__name__}: {error}).") from None
    if odd := odd_value(checkpoint.state):
        raise CheckpointError(f"{path / STATE_NAME} is forged or of another version: {odd}.")
    _LOG.info("read checkpoint %s", path)
    return checkpoint


def list_checkpoints(directory: Path) -> list[Path]:
    """Return all checkpoint folders, usable or not, in order of their steps."""
    if not directory.is_dir():
        return []
    found = {}
    for path in sorted(directory.iterdir()):  # ".step-1.old" comes before "step-1", which replaces it
        step, is_replaced = step_of(path), path.name.startswith(".")
        if step >= 0 and (not is_replaced or (path / MANIFEST_NAME).is_file()):
            found[step] = path
    return [found[step] for step in sorted(found)]


def step_of(path: Path) -> int:
    """Return the global step of a checkpoint folder, or -1 if its name is no name of a checkpoint."""
    found = re.fullmatch(r"step-(\d{8,})|\.step-(\d{8,})\.old", path.name)
    return int(found[1] or found[2]) if found else -1


def find_checkpoint(directory: Path, step: int) -> Path:
    """Return the folder that holds the checkpoint of a global step, or the name that it would have."""
    found = [path for path in list_checkpoints(directory) if step_of(path) == step]
    return found[0] if found else checkpoint_path(directory, step)


def tidy_checkpoints(directory: Path) -> None:
    """Remove leftovers of interrupted saves and removals; for the holder of the run.

    Checkpoints that a kill left under the name `.old` alone get their names back before.
    """
    for path in list_checkpoints(directory):
        if path.name.startswith("."):
            path.rename(checkpoint_path(directory, step_of(path)))
    for path in directory.glob(".step-*"):
        remove(path)


def pack_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Return a checkpoint as bytes for another process."""
    arrays = save({name: np.asarray(array, order="C") for name, array in checkpoint.arrays.items()})
    head = json.dumps({"path": str(checkpoint.path), "state": checkpoint.state}).encode()
    return len(head).to_bytes(8, "little") + head + arrays


def unpack_checkpoint(content: bytes) -> Checkpoint:
    """Return the checkpoint that `pack_checkpoint` packed."""
    first = 8 + int.from_bytes(content[:8], "little")
    head = json.loads(content[8:first])
    return Checkpoint(Path(head["path"]), load(content[first:]), head["state"])


def newest_checkpoint(directory: Path, load: Callable[[Path], Checkpoint] = load_checkpoint) -> Checkpoint | None:
    """Load the newest checkpoint that is whole, and log a warning for each newer one. Return None if there is none.

    Args:
        directory: folder of all checkpoints.
        load: loads a checkpoint, or raises `CheckpointError` if it cannot be used.

    Raises:
        CheckpointError: checkpoints exist, but none can be used.
    """
    paths = list_checkpoints(directory)
    for path in reversed(paths):
        try:
            return load(path)
        except CheckpointError as error:
            _LOG.warning("%s Trying the checkpoint before it.", error)
    if paths:
        raise CheckpointError(
            f"None of the {len(paths)} checkpoints in {directory} can be used. Train into a new run directory."
        )
    return None


def retain_checkpoints(directory: Path, *, keep: int, best_step: int | None) -> None:
    """Remove all checkpoints but the `keep` newest and the best, and the leftovers of interrupted saves.

    Raises:
        OSError: a checkpoint cannot be removed; the next call tries again.
    """
    paths = list_checkpoints(directory)
    outdated = [path for path in paths[: max(0, len(paths) - keep)] if step_of(path) != best_step]
    remove_checkpoints(outdated)
    tidy_checkpoints(directory)


def remove_checkpoints(paths: Iterable[Path]) -> None:
    """Remove checkpoints; an interrupted removal leaves none that could be loaded."""
    for path in paths:
        name = path.name.removeprefix(".").removesuffix(".old")
        outdated = path.with_name(f".{name}.removed")
        remove(outdated)
        path.rename(outdated)
        remove(outdated)
