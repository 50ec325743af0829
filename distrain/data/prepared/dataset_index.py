"""Opens a prepared data set: reads `dataset.json` and checks the files that the index names.

Decides: which index is valid, and how much of the files is read to check them. Never: what a feature means, or which
process reads which row.

    dataset = open_dataset(folder)
    dataset.parts["train"].num_rows

A data set is a folder. A writer writes `dataset.json` last, so a folder without `dataset.json` is not a data set. A
shard has one `.npy` file per array, such as `train-00000.columns.npy`, and is read without pickle.

The index records size and SHA-256 of every file. Opening compares the SHA-256 of all files but the shards. The shards
also have a CRC-32, which opening compares, because SHA-256 would take more than 2% of an epoch's time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distrain.config.text import TASKS
from distrain.data.prepared.fetched_folder import FetchedFolder
from distrain.data.prepared.shards import Part, Shard, ShardFile, array_dtypes
from distrain.errors import DataError
from distrain.files import json_bytes, read_json_object
from distrain.fingerprints import Fingerprint, digest_of, faults_in, size_fault
from distrain.remote.path import RemotePath

INDEX_NAME = "dataset.json"
FORMAT_VERSION = 2  # version 1 had no SHA-256 of shards
TASK_VERSION = 3  # of rows with weights, with several labels or with numbers to predict
KINDS = ("ngram", "sequence")
PARTS = ("train", "test")


@dataclass(frozen=True)
class Dataset:
    """An opened data set.

    Attributes:
        directory: the folder of the data set.
        kind: "ngram" or "sequence".
        num_features: exclusive upper bound of columns.
        max_length: words in the longest sequence; None for n-grams.
        classes: class names in label order.
        parts: "train" and "test".
        digest: SHA-256 (hex) of the index, which contains the checksums of all files.
        files: record of each file but the index, by its path within the folder.
        vectorizer: the folder of the vectorizer, or None.
        details: the choices that `prepare` recorded.
        task: "classification", "multilabel" or "regression".
        target_mean: mean of the training targets of a regression, else None.
        target_deviation: standard deviation of the training targets of a regression, else None.
        fetched: what fetches the files of a remote data set; else None.
    """

    directory: Path
    kind: str
    num_features: int
    max_length: int | None
    classes: tuple[str, ...]
    parts: Mapping[str, Part]
    digest: str
    files: Mapping[str, Fingerprint]
    vectorizer: Path | None
    details: Mapping[str, Any]
    task: str = "classification"
    target_mean: float | None = None
    target_deviation: float | None = None
    fetched: FetchedFolder | None = None


def open_dataset(directory: Path, *, verify: bool = True) -> Dataset:
    """Open a prepared data set.

    Args:
        directory: the folder that `distrain prepare` wrote, or the URL of a copy.
        verify: True compares checksums, which reads every file once; False compares sizes only.

    Raises:
        DataError: the folder is not a data set of this version, or a file is missing, cut or changed.
    """
    dataset = read_index(directory)
    if dataset.fetched is not None:  # shards are compared when they are fetched, before their first use
        dataset.fetched.expect(dataset.files)
        dataset.fetched.fetch(name for name in dataset.files if name.partition("/")[2])
        return dataset
    for part in dataset.parts.values():
        part.remember_files()
    sizes = ((name, size_fault(dataset.directory / name, record)) for name, record in dataset.files.items())
    for name, fault in faults_in(dataset.directory, dataset.files, fast=True) if verify else sizes:
        if fault:
            raise DataError(
                f"{dataset.directory / name} {fault}. Run 'distrain prepare' again, or copy the data set anew."
            )
    return dataset


def read_index(directory: Path | RemotePath) -> Dataset:
    """Read `dataset.json` without a look at the files that the index names.

    Raises:
        DataError: the folder is not a data set of this version, or the index is damaged.
    """
    path = directory / INDEX_NAME
    cure = "Run 'distrain prepare' again."
    fetched = None
    try:
        if not path.is_file():
            cure = "Make it with 'distrain prepare'."
            if isinstance(directory, RemotePath):
                cure = "Of URLs only prepared text is read: copy arrays to a local disk."
            raise DataError(f"{directory} is not a prepared data set: it has no {INDEX_NAME}. {cure}")
        if isinstance(directory, RemotePath):
            fetched = FetchedFolder(directory, INDEX_NAME)
            directory = fetched.path
            path = directory / INDEX_NAME
        index = read_json_object(path)
        if index["format"] != "distrain-dataset" or index["version"] not in (FORMAT_VERSION, TASK_VERSION):
            raise DataError(
                f"{path} is of format {index['format']!r} version {index['version']!r}; "
                f"this distrain reads versions {FORMAT_VERSION} and {TASK_VERSION}. {cure}"
            )
        if index["digest"] != digest_of(index) or path.read_bytes() != json_bytes(index):
            raise DataError(f"{path} was changed after it was written: its digest does not fit. {cure}")
        return _parse(directory, index, fetched)
    except DataError:
        raise
    except PermissionError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check your permissions.") from None
    except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error}). {cure}") from None


def _parse(directory: Path, index: Mapping[str, Any], fetched: FetchedFolder | None) -> Dataset:
    if index["kind"] not in KINDS or set(index["parts"]) != set(PARTS):
        raise ValueError("unknown kind or parts")
    classes = tuple(str(name) for name in index["classes"])
    task, has_weights = "classification", False
    if index["version"] == TASK_VERSION:
        task, has_weights = index["task"], index["has_weights"]
    if task not in TASKS or not isinstance(has_weights, bool):
        raise ValueError(f"unknown task {task!r}")
    scale = (float(index["target_mean"]), float(index["target_deviation"])) if task == "regression" else None
    if scale and not (math.isfinite(scale[0]) and 0 < scale[1] < math.inf):
        raise ValueError(f"targets of mean {scale[0]} and deviation {scale[1]}")
    parts, records = {}, dict[str, Fingerprint]()
    for name, content in index["parts"].items():
        shards = []
        next_row = 0
        for entry in content["shards"]:
            files = {key: ShardFile(**value) for key, value in entry["files"].items()}
            records |= {file.name: Fingerprint(file.bytes, file.sha256, file.crc32) for file in files.values()}
            if set(files) != set(array_dtypes(index["kind"], task, has_weights=has_weights)):
                raise ValueError(f"a shard of {', '.join(files)}")
            num_rows = entry["num_rows"]
            if entry["first_row"] != next_row or not (isinstance(num_rows, int) and num_rows > 0):
                raise ValueError(f"a shard that starts at row {entry['first_row']!r}")
            shards.append(Shard(next_row, num_rows, files))
            next_row += num_rows
        if content["num_rows"] != next_row:
            raise ValueError(f"{content['num_rows']!r} rows, but shards of {next_row}")
        sizes = int(index["num_features"]), len(classes), next_row
        parts[name] = Part(directory, name, index["kind"], *sizes, tuple(shards), task, has_weights, fetched)
    vectorizer, vectorizer_files = index["vectorizer"], index["vectorizer_files"]
    names = [*records, *vectorizer_files, *([] if vectorizer is None else [vectorizer])]
    if odd := next((name for name in names if not _is_plain_name(name)), None):
        raise ValueError(f"a file named {odd!r}")
    records |= {f"{vectorizer}/{name}": Fingerprint(**record) for name, record in vectorizer_files.items()}
    return Dataset(
        directory=directory,
        kind=index["kind"],
        num_features=int(index["num_features"]),
        max_length=None if index["max_length"] is None else int(index["max_length"]),
        classes=classes,
        parts=parts,
        digest=index["digest"],
        files=records,
        vectorizer=None if vectorizer is None else directory / vectorizer,
        details=dict(index["details"]),
        task=task,
        target_mean=scale[0] if scale else None,
        target_deviation=scale[1] if scale else None,
        fetched=fetched,
    )


def _is_plain_name(name: str) -> bool:
    """Whether `name` is a file name without a path, because a hostile index must not reach files outside its folder."""
    return name not in ("", "..") and Path(name).name == name
