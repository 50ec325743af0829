"""Arrays in files, for which a failed write is an `OSError` that names file and reason.

Decides: how arrays get into a file. Never: what arrays mean, or how they are read.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.npy"
    >>> save_npy(path, np.arange(3))
    >>> np.load(path).tolist()
    [0, 1, 2]

`numpy.save` and `ndarray.tofile` raise errors without a reason, and safetensors raises an error of its own.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from distrain.files import naming


def save_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name in the format of safetensors, readable for the owner alone."""
    try:
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, path)
    except SafetensorError as error:  # safetensors raises it for a full disk
        found = re.search(r"\(os error (\d+)\)", str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number) if found else str(error), str(path)) from None


def save_npy(path: Path, array: np.ndarray) -> None:
    """Write a contiguous array of one axis as `numpy.save` does."""
    with naming(path), path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.view(np.uint8).data)


def write_values(path: Path, array: np.ndarray) -> None:
    """Write the values of a contiguous array alone, as `ndarray.tofile` does."""
    with naming(path), path.open("wb") as file:
        file.write(array.reshape(-1).view(np.uint8).data)
