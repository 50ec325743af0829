"""The manifest of a folder of arrays that distrain wrote: sizes and checksums of its files.

Decides: what `arrays.json` records, and when a folder counts as damaged. Never: what an array means.

    write_manifest(folder, {"train": 5000}, {"train": "a digest"})
    check_recorded_files(folder)                        # raises DataError if a file is missing, cut or changed

A folder that a user wrote has no manifest, and its files are not compared. As of prepared text, opening compares the
CRC-32 of each file, and `distrain verify` the SHA-256.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distrain.errors import DataError
from distrain.files import json_bytes, naming, read_json_object
from distrain.fingerprints import Fingerprint, digest_of, faults_in, fingerprint_of, size_fault

MANIFEST_NAME = "arrays.json"
FORMAT, VERSION = "distrain-arrays", 1
_CURE = "Delete the folder, so that it is written again."


def write_manifest(folder: Path, parts: Mapping[str, int], source: Mapping[str, str]) -> None:
    """Write the manifest of a folder, which holds all its other files.

    Args:
        folder: the folder.
        parts: number of examples of each part.
        source: identity of the data of each part.
    """
    records = {path.name: fingerprint_of(path, with_crc32=True).as_json() for path in sorted(folder.iterdir())}
    manifest = {"format": FORMAT, "version": VERSION, "parts": parts, "source": source, "files": records}
    manifest["digest"] = digest_of(manifest)
    with naming(folder / MANIFEST_NAME):
        (folder / MANIFEST_NAME).write_bytes(json_bytes(manifest))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what `write_manifest` recorded, without a look at the files themselves.

    Raises:
        FileNotFoundError: the folder has no manifest.
        DataError: the manifest is damaged.
    """
    path = folder / MANIFEST_NAME
    try:
        manifest = read_json_object(path)
        if (manifest["format"], manifest["version"]) != (FORMAT, VERSION) or manifest["digest"] != digest_of(manifest):
            raise ValueError("its digest or its version does not fit")
        if odd := next((name for name in recorded_files(manifest) if name == ".." or Path(name).name != name), None):
            raise ValueError(f"a file named {odd!r}")
        if not isinstance(manifest["source"], dict):
            raise TypeError("no source")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error}). {_CURE}") from None
    return manifest


def recorded_files(manifest: Mapping[str, Any]) -> dict[str, Fingerprint]:
    """Return the record of each file of a manifest, by its name."""
    return {str(name): Fingerprint(**record) for name, record in manifest["files"].items()}


def recorded_digest(folder: Path) -> str | None:
    """Return a digest of all that a folder holds, hex; None for a folder without a manifest.

    Raises:
        DataError: the manifest is damaged.
    """
    try:
        return digest_of(read_manifest(folder))
    except FileNotFoundError:
        return None


def check_recorded_files(folder: Path, *, verify: bool = True) -> None:
    """Compare the files of a folder with its manifest, if it has one.

    Args:
        folder: a folder of arrays, which distrain or somebody else wrote.
        verify: True compares checksums, which reads every file once; False compares sizes only.

    Raises:
        DataError: the manifest is damaged, or a file is missing, cut or changed.
    """
    try:
        records = recorded_files(read_manifest(folder))
    except FileNotFoundError:
        return
    sizes = ((name, size_fault(folder / name, record)) for name, record in records.items())
    for name, fault in faults_in(folder, records, fast=True) if verify else sizes:
        if fault:
            raise DataError(f"{folder / name} {fault}. {_CURE} If you changed it on purpose, delete {MANIFEST_NAME}.")
