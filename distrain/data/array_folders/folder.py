"""A folder of memory-mapped NumPy arrays as training data, for models of anything but text.

Decides: the file names in such a folder. Never: what the arrays mean.

    numpy.save("data/train.x.npy", images); numpy.save("data/train.y.npy", labels)
    parts = open_array_folder(Path("data"))       # {"train": Examples}

    train.x.npy            features
    train.x.npz            sparse features, as scipy.sparse.save_npz writes them
    train.y.npy            labels, unless the model needs none
    train.weights.npy      example weights, optional: [n], or of a shape that the loss takes, such as [n, time]
    validation.x.npy ...   the same files for validation, optional
    test.x.npy ...         the same files for a last evaluation, optional; without `validation` for validation too

Several inputs, labels or weights stand in a file each: `train.x.NAME.npy`, `train.y.NAME.npy`,
`train.weights.NAME.npy`, where NAME is an input or an output of the model. The names 0, 1, 2, ... make a list instead,
for a model that takes its inputs, or gives its outputs, by position.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from distrain.data.array_folders.manifest import check_recorded_files
from distrain.data.examples import Examples
from distrain.data.sources import array_examples
from distrain.errors import ConfigurationError, DataError
from distrain.regular_file import open_regular
from distrain.remote.path import RemotePath

PARTS = ("train", "validation", "test")
KINDS = {"x": "features", "y": "labels", "weights": "weights"}


def is_array_folder(directory: Path) -> bool:
    """Whether the folder contains arrays of a part."""
    return not isinstance(directory, RemotePath) and any(_has_part(directory, part) for part in PARTS)


def open_array_folder(directory: Path, *, verify: bool = True) -> dict[str, Examples]:
    """Examples of each part of the folder: "train", "validation" and "test", if the folder has them.

    Args:
        directory: the folder.
        verify: True compares checksums if distrain wrote the folder, which reads every file once; False compares sizes.

    Raises:
        DataError: a file is missing or damaged, or lengths differ.
    """
    check_recorded_files(directory, verify=verify)
    return {part: _open_part(directory, part) for part in PARTS if _has_part(directory, part)}


def _has_part(directory: Path, part: str) -> bool:
    return any(_files(directory, part, kind) for kind in ("x", "y"))


def _open_part(directory: Path, part: str) -> Examples:
    features, labels, weights = part_arrays(directory, part)
    if features is None:
        raise DataError(
            f"{directory} has {_files(directory, part, 'y')[0].name}, but not the features: give either {part}.x.npy "
            f"(or .npz), or one {part}.x.NAME.npy for each input of the model."
        )
    try:
        return array_examples(features, labels, weights)
    except ConfigurationError as error:
        raise DataError(f"{directory}, {part}: {error}") from None


def part_arrays(directory: Path, part: str) -> tuple[Any, Any, Any]:
    """Return features, labels and weights of a part: arrays or nests of arrays, None where the folder has none.

    Raises:
        DataError: a file is damaged.
    """
    features, labels, weights = (_open_arrays(directory, part, kind) for kind in KINDS)
    return features, labels, weights


def _files(directory: Path, part: str, kind: str) -> list[Path]:
    suffixes = (".npy", ".npz") if kind == "x" else (".npy",)
    return sorted(path for path in directory.glob(f"{part}.{kind}.*") if path.suffix in suffixes)


def _open_arrays(directory: Path, part: str, kind: str) -> Any:
    """Return an array, a list of arrays by position, a dict of arrays by name, or None without files."""
    files: dict[str, Path] = {}
    for path in _files(directory, part, kind):
        name = path.name.removeprefix(f"{part}.{kind}").removesuffix(path.suffix).removeprefix(".")
        if files and (name in files or "" in (name, *files)):
            raise DataError(
                f"{directory} has {path.name} beside {next(iter(files.values())).name}: give one file, or one file for "
                f"each name, not the {KINDS[kind]} twice."
            )
        files[name] = path
    arrays = {name: _load(path) for name, path in files.items()}
    if not arrays or "" in arrays:
        return arrays.get("")
    positions = [str(position) for position in range(len(arrays))]
    return [arrays[name] for name in positions] if set(arrays) == set(positions) else arrays


def _load(path: Path) -> Any:
    try:
        with open_regular(path) as file:
            if path.suffix == ".npz":
                return scipy.sparse.load_npz(file)  # SciPy would leave a damaged file open if it got the path
        return np.lib.format.open_memmap(path, mode="r")  # never reads pickle
    except Exception as error:  # for a damaged file NumPy, SciPy, zipfile and zlib raise many types
        reason = str(error) or type(error).__name__
        raise DataError(f"{path} is not an array that NumPy can open without pickle: {reason}") from None
