"""A folder of memory-mapped NumPy arrays as training data, for models of anything but text.

Decides: the file names in such a folder. Never: what the arrays mean.

    numpy.save("data/train.x.npy", images); numpy.save("data/train.y.npy", labels)
    parts = open_array_folder(Path("data"))       # {"train": Examples}

    train.x.npy            features, or one file per input of the model: train.x.NAME.npy
    train.x.npz            sparse features, as scipy.sparse.save_npz writes them
    train.y.npy            labels
    train.weights.npy      example weights, optional
    test.x.npy ...         the same files for validation, optional
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from distrain.data.examples import Examples
from distrain.data.sources import array_examples
from distrain.errors import ConfigurationError, DataError


def is_array_folder(directory: Path) -> bool:
    """Whether the folder contains training arrays."""
    return (directory / "train.y.npy").is_file()


def open_array_folder(directory: Path) -> dict[str, Examples]:
    """Examples of each part of the folder: "train", and "test" if the folder has a test part.

    Raises:
        DataError: a file is missing or damaged, or lengths differ.
    """
    return {part: _open_part(directory, part) for part in ("train", "test") if (directory / f"{part}.y.npy").is_file()}


def _open_part(directory: Path, part: str) -> Examples:
    inputs: dict[str, Any] = {}
    for path in sorted(directory.glob(f"{part}.x*.np[yz]")):
        name = path.stem.removeprefix(f"{part}.x").removeprefix(".")
        inputs[name] = _load(path)
    if not inputs or ("" in inputs and len(inputs) > 1):
        raise DataError(
            f"{directory} has {part}.y.npy, but not the features: give either {part}.x.npy (or .npz), or one "
            f"{part}.x.NAME.npy for each input of the model."
        )
    features: Mapping[str, Any] | Any = inputs.get("", inputs)
    weights = directory / f"{part}.weights.npy"
    try:
        return array_examples(
            features, _load(directory / f"{part}.y.npy"), _load(weights) if weights.is_file() else None
        )
    except ConfigurationError as error:
        raise DataError(f"{directory}, {part}: {error}") from None


def _load(path: Path) -> Any:
    try:
        if path.suffix == ".npz":
            with path.open("rb") as file:  # SciPy would leave a damaged file open if it got the path
                return scipy.sparse.load_npz(file)
        return np.lib.format.open_memmap(path, mode="r")  # never reads pickle
    except Exception as error:  # for a damaged file NumPy, SciPy, zipfile and zlib raise many types
        reason = str(error) or type(error).__name__
        raise DataError(f"{path} is not an array that NumPy can open without pickle: {reason}") from None
