"""A folder of NumPy arrays as training data, memory-mapped: for models that are not about text.

Decides: how such a folder is laid out. Never: what the arrays mean.

    numpy.save("data/train.x.npy", images); numpy.save("data/train.y.npy", labels)
    parts = open_array_folder(Path("data"))       # {"train": Examples}

    train.x.npy            the features, or one file per input of the model: train.x.NAME.npy
    train.x.npz            ... sparse ones, as scipy.sparse.save_npz writes them
    train.y.npy            the labels
    train.weights.npy      example weights, if any
    test.x.npy ...         the same for validation, if any
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
    """Whether the folder holds arrays to train on."""
    return (directory / "train.y.npy").is_file()


def open_array_folder(directory: Path) -> dict[str, Examples]:
    """The examples of each part that the folder has: "train", and "test" if there is one.

    Raises:
        DataError: a file is missing, damaged, or does not fit the others.
    """
    return {part: _open_part(directory, part) for part in ("train", "test") if (directory / f"{part}.y.npy").is_file()}


def _open_part(directory: Path, part: str) -> Examples:
    inputs: dict[str, Any] = {}
    for path in sorted(directory.glob(f"{part}.x*.np[yz]")):
        name = path.stem.removeprefix(f"{part}.x").removeprefix(".")
        inputs[name] = _load(path)
    if not inputs or ("" in inputs and len(inputs) > 1):
        raise DataError(
            f"{directory} has {part}.y.npy, but not the features that go with it: either {part}.x.npy (or .npz), or "
            f"one {part}.x.NAME.npy for each input of the model."
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
            with path.open("rb") as file:  # SciPy, given the path, leaves a damaged file open
                return scipy.sparse.load_npz(file)
        return np.lib.format.open_memmap(path, mode="r")  # knows no pickle
    except Exception as error:  # over a damaged file NumPy, SciPy, zipfile and zlib raise nearly anything
        reason = str(error) or type(error).__name__
        raise DataError(f"{path} is not an array that NumPy can open without pickle: {reason}") from None
