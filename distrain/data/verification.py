"""Compares every file of prepared text, or of arrays that distrain wrote, with its record, by SHA-256.

Decides: which files belong to such a folder. Never: reads rows.

    findings = verify_dataset(Path("data"))
    findings.faults                              # {"train-00000.values.npy": "was changed: ..."}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from distrain.data.array_folders.manifest import MANIFEST_NAME, read_manifest, recorded_files
from distrain.data.prepared.dataset_index import INDEX_NAME, read_index
from distrain.data.prepared.fetched_folder import compared_copy, remote_names
from distrain.errors import DataError
from distrain.fingerprints import Findings, Fingerprint, faults_in
from distrain.remote.path import RemotePath


def is_dataset(directory: Path) -> bool:
    """Whether a folder is a data set, or was one before it lost its index."""
    if isinstance(directory, RemotePath):
        return (directory / INDEX_NAME).is_file()
    return (directory / INDEX_NAME).is_file() or any(directory.glob("t*-00000.*.npy"))


def verify_dataset(directory: Path) -> Findings:
    """Return what differs from the index of a data set; without a usable index, the fault of the index alone."""
    try:
        dataset = read_index(directory)
    except DataError as error:
        return Findings((INDEX_NAME,), 0, {INDEX_NAME: str(error)}, (), {})
    if isinstance(directory, RemotePath):
        names, faults = remote_names(directory), dict(_remote_faults(directory, dataset.files))
    else:
        names, faults = _local_names(directory), dict(faults_in(directory, dataset.files))
    return _findings(directory / INDEX_NAME, dataset.files, names, faults)


def is_recorded_arrays(directory: Path) -> bool:
    """Whether a folder holds arrays that distrain wrote."""
    return not isinstance(directory, RemotePath) and (directory / MANIFEST_NAME).is_file()


def verify_arrays(directory: Path) -> Findings:
    """Return what differs from the manifest of a folder of arrays; without a usable manifest, its fault alone."""
    try:
        records = recorded_files(read_manifest(directory))
    except DataError as error:
        return Findings((MANIFEST_NAME,), 0, {MANIFEST_NAME: str(error)}, (), {})
    return _findings(directory / MANIFEST_NAME, records, _local_names(directory), dict(faults_in(directory, records)))


def _findings(index: Path, records: Mapping[str, Fingerprint], names: set[str], faults: Mapping[str, str]) -> Findings:
    """Return the findings of a folder whose file `index` holds the records of all others."""
    return Findings(
        files=(index.name, *records),
        bytes=index.stat().st_size + sum(record.bytes for record in records.values()),
        faults=faults,
        unknown=tuple(sorted(names - {index.name, *records})),
        unchecked={},
    )


def _local_names(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}


def _remote_faults(directory: RemotePath, records: Mapping[str, Fingerprint]) -> Iterator[tuple[str, str]]:
    """Yield name and fault of each file that its server gives other than recorded."""
    for name, record in records.items():
        try:
            compared_copy(directory / name, record)
        except DataError as error:
            yield name, str(error)
