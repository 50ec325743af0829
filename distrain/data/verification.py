"""Compares every file of a data set with its record, by SHA-256.

Decides: which files belong to a data set. Never: reads rows.

    findings = verify_dataset(Path("data"))
    findings.faults                              # {"train-00000.values.npy": "was changed: ..."}
"""

from __future__ import annotations

from pathlib import Path

from distrain.data.dataset_index import INDEX_NAME, read_index
from distrain.errors import DataError
from distrain.fingerprints import Findings, faults_in


def is_dataset(directory: Path) -> bool:
    """Whether a folder is a data set, or was one before it lost its index."""
    return (directory / INDEX_NAME).is_file() or any(directory.glob("t*-00000.*.npy"))


def verify_dataset(directory: Path) -> Findings:
    """Return what differs from the index of a data set; without a usable index, the fault of the index alone."""
    try:
        dataset = read_index(directory)
    except DataError as error:
        return Findings((INDEX_NAME,), 0, {INDEX_NAME: str(error)}, (), {})
    names = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}
    return Findings(
        files=(INDEX_NAME, *dataset.files),
        bytes=(directory / INDEX_NAME).stat().st_size + sum(record.bytes for record in dataset.files.values()),
        faults=dict(faults_in(directory, dataset.files)),
        unknown=tuple(sorted(names - {INDEX_NAME, *dataset.files})),
        unchecked={},
    )
