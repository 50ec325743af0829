"""Arrays in files: the bytes that NumPy writes, and a reason if the disk refuses them."""

from __future__ import annotations

import errno
import os
import resource

import numpy as np
import pytest
from safetensors.numpy import save

from distrain import array_files
from distrain.array_files import save_npy, save_safetensors, write_values
from distrain.fingerprints import fingerprint_of

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


def test_safetensors_have_the_bytes_that_the_library_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(array_files, "PIECE_BYTES", 2**18)
    names = ("bool", "i1", "u1", "i2", "u2", "f2", "i4", "u4", "f4", "c8", "f8", "i8", "u8")
    arrays = {f'é"\n/{number}': np.ones((number, 2), name) for number, name in enumerate(names)}
    arrays |= {"scalar": np.float32(3), "turned": np.arange(6, dtype="f4").reshape(2, 3).T, "large": np.arange(125e3)}
    pieces = []
    written = save_safetensors(tmp_path / "ours", arrays, lambda: pieces.append(None))
    library = save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    assert (tmp_path / "ours").read_bytes() == library
    assert written == fingerprint_of(tmp_path / "ours")
    assert len(pieces) == 1 + (len(arrays) - 2) + 4  # the header, small arrays that are not empty, 1 MB in 256 KiB
    save_safetensors(tmp_path / "nothing", {})
    assert (tmp_path / "nothing").read_bytes() == save({})


def test_large_files_are_synced_piece_by_piece(tmp_path, monkeypatch):
    """A single sync of gigabytes would hold up all other files."""
    sizes = []
    monkeypatch.setattr(array_files, "PIECE_BYTES", 2**17)
    monkeypatch.setattr(array_files, "SYNC_BYTES", 2**20)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    save_safetensors(tmp_path / "small", {"array": np.zeros(100)})
    assert sizes == []
    save_safetensors(tmp_path / "large", {"array": np.zeros(10 * 2**18, np.uint8)})
    assert len(sizes) == 2
    assert sizes[1] - sizes[0] == 2**20
