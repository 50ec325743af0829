"""Arrays in files: the bytes that NumPy writes, and a reason if the disk refuses them."""

from __future__ import annotations

import errno
import resource

import numpy as np
import pytest

from distrain.array_files import save_npy, save_safetensors, write_values

ARRAYS = [np.arange(5), np.zeros(0, np.float32), np.array([True, False]), np.linspace(0, 1, 70_000)]
WRITERS = {
    "npy": save_npy,
    "values": write_values,
    "safetensors": lambda path, array: save_safetensors(path, {"array": array}),
}


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}-{array.size}")
def test_files_have_the_bytes_that_numpy_writes(tmp_path, array):
    save_npy(tmp_path / "ours", array)
    write_values(tmp_path / "our values", array)
    with (tmp_path / "theirs").open("wb") as file:
        np.save(file, array)
    array.tofile(tmp_path / "their values")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert (tmp_path / "our values").read_bytes() == (tmp_path / "their values").read_bytes()


@pytest.mark.parametrize("writer", WRITERS)
def test_a_refused_write_is_an_error_with_file_and_reason(tmp_path, writer):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            WRITERS[writer](tmp_path / "arrays", ARRAYS[-1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(tmp_path / "arrays")
