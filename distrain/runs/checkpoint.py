"""Save, restore, retain: a checkpoint is whole or absent, and nothing in it can run code.

Decides: the files of a checkpoint, which one is the newest that can be used, which ones are kept. Never: what the
state means, or when it is saved.

    path = save_checkpoint(run / "checkpoints", 1200, arrays, state)
    checkpoint = newest_checkpoint(run / "checkpoints")
    checkpoint.arrays["model/0000"], checkpoint.state["epoch"]

`step-NNNNNNNN/` holds `arrays.safetensors`, `state.json` and, written last, `manifest.json` with the size and SHA-256
of both. It is written beside, synced and renamed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, load_file, save, save_file

from distrain.errors import CheckpointError

_LOG = logging.getLogger(__name__)

FORMAT_VERSION = 1
ARRAYS_NAME = "arrays.safetensors"
STATE_NAME = "state.json"
MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """A restored checkpoint: named arrays and JSON state."""

    path: Path
    arrays: Mapping[str, np.ndarray]
    state: Mapping[str, Any]


def checkpoint_path(directory: Path, step: int) -> Path:
    """The folder of the checkpoint at a global step."""
    return directory / f"step-{step:08d}"


def save_checkpoint(directory: Path, step: int, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> Path:
    """Write one checkpoint; one of the same step is replaced.

    Args:
        directory: the `checkpoints` folder, made if need be.
        step: global step, which names it.
        arrays: by name.
        state: what `json` can write.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: it cannot be written; nothing is left then.
    """
    directory.mkdir(parents=True, exist_ok=True)
    final = checkpoint_path(directory, step)
    beside = directory / f".{final.name}.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, beside / ARRAYS_NAME)
        (beside / STATE_NAME).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        shutil.copymode(beside / STATE_NAME, beside / ARRAYS_NAME)  # safetensors lets nobody but the owner read
        files = {
            name: {"bytes": (beside / name).stat().st_size, "sha256": _sha256(beside / name)}
            for name in (ARRAYS_NAME, STATE_NAME)
        }
        for name in files:
            _sync(beside / name)
        manifest = {"format": "distrain-checkpoint", "version": FORMAT_VERSION, "step": step, "files": files}
        (beside / MANIFEST_NAME).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        _sync(beside / MANIFEST_NAME)
        _sync(beside)
        if final.exists():
            replaced = directory / f".{final.name}.old"
            shutil.rmtree(replaced, ignore_errors=True)
            final.rename(replaced)
            beside.rename(final)
            shutil.rmtree(replaced)
        else:
            beside.rename(final)
        _sync(directory)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, SafetensorError):  # its word for a full disk
            raise OSError(str(error)) from None
        raise
    return final


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint and check it against its manifest.

    Raises:
        CheckpointError: it is missing, cut, changed, or of another version.
    """
    try:
        manifest = json.loads((path / MANIFEST_NAME).read_text(encoding="utf-8"))
        if manifest["format"] != "distrain-checkpoint" or manifest["version"] != FORMAT_VERSION:
            raise CheckpointError(f"{path} is of another format or version than this distrain reads.")
        for name in (ARRAYS_NAME, STATE_NAME):
            if _sha256(path / name) != manifest["files"][name]["sha256"]:
                raise CheckpointError(f"{path / name} is cut or changed: its checksum does not fit.")
        state = json.loads((path / STATE_NAME).read_text(encoding="utf-8"))
        if not isinstance(state, dict):
            raise CheckpointError(f"{path / STATE_NAME} is not a JSON object, as distrain writes it.")
        return Checkpoint(path, load_file(path / ARRAYS_NAME), state)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a whole checkpoint ({type(error).__name__}: {error}).") from None


def list_checkpoints(directory: Path) -> list[Path]:
    """All checkpoint folders, oldest first, usable or not."""
    if not directory.is_dir():
        return []
    paths = [path for path in directory.iterdir() if re.fullmatch(r"step-\d{8,}", path.name)]
    return sorted(paths, key=lambda path: int(path.name.removeprefix("step-")))


def pack_checkpoint(checkpoint: Checkpoint) -> bytes:
    """A checkpoint as bytes, to send to another process."""
    arrays = save({name: np.asarray(array, order="C") for name, array in checkpoint.arrays.items()})
    head = json.dumps({"path": str(checkpoint.path), "state": checkpoint.state}).encode()
    return len(head).to_bytes(8, "little") + head + arrays


def unpack_checkpoint(content: bytes) -> Checkpoint:
    """The checkpoint that `pack_checkpoint` packed."""
    first = 8 + int.from_bytes(content[:8], "little")
    head = json.loads(content[8:first])
    return Checkpoint(Path(head["path"]), load(content[first:]), head["state"])


def newest_checkpoint(directory: Path) -> Checkpoint | None:
    """Load the newest checkpoint that is whole, and log a warning for each newer one. Return None if there is none.

    Raises:
        CheckpointError: there are checkpoints, but none can be used.
    """
    paths = list_checkpoints(directory)
    for path in reversed(paths):
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            _LOG.warning("%s Trying the one before it.", error)
    if paths:
        raise CheckpointError(
            f"None of the {len(paths)} checkpoints in {directory} can be used. Train into a new run directory."
        )
    return None


def retain_checkpoints(directory: Path, *, keep: int, best_step: int | None) -> None:
    """Remove all but the `keep` newest checkpoints and the best one, and what an earlier save left half-written."""
    paths = list_checkpoints(directory)
    for path in paths[: max(0, len(paths) - keep)]:
        if best_step is None or path != checkpoint_path(directory, best_step):
            path.rename(path.with_name(f".{path.name}.old"))  # a removal that is cut short leaves nothing that opens
    for path in directory.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
