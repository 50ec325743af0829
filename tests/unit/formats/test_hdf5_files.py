"""HDF5 gives its own data sets alone: nothing of another file, and no other type than numbers, texts and bytes."""

from __future__ import annotations

import fcntl
import os

import h5py
import numpy as np
import pytest

from distrain import formats
from distrain.errors import ConfigurationError, DataError

X = np.arange(24.0).reshape(8, 3)


@pytest.fixture
def path(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as other:
        other["x"] = X
    X.tofile(tmp_path / "secret.bin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["train/x"], file["train/y"] = X, np.arange(8)
        file["flags"] = np.array([True, False] * 4)
        file["big"] = X.astype(">f8")
        file["text"] = ["a", "bc"] * 4
        images = file.create_dataset("jpeg", 8, h5py.vlen_dtype(np.uint8))
        for row in range(8):
            images[row] = np.arange(row + 1, dtype=np.uint8)
        file["compound"] = np.zeros(8, [("a", "f4")])
        file["single"] = 3
        file["outside"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/x")
        file["group"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/")
        file.create_dataset("raw", (8, 3), "f8", external=[(str(tmp_path / "secret.bin"), 0, h5py.h5f.UNLIMITED)])
        layout = h5py.VirtualLayout((8, 3), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", (8, 3))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("huge", (2, 2**40), "f8", chunks=(1, 2**10))
        file.create_dataset("long", (2**50,), "i1", chunks=(2**10,))
    return tmp_path / "a.h5"


def test_numbers_texts_and_bytes_are_read(path):
    features, label = formats.hdf5(path, features="train/x")[2]
    assert (features.tolist(), label) == (X[2].tolist(), 2)
    assert formats.hdf5(path, features="flags", label=()).read(0, 3)[0].tolist() == [True, False, True]
    (numbers,) = formats.hdf5(path, features="big", label=()).read(0, 8)
    assert numbers.dtype == np.float64
    np.testing.assert_array_equal(numbers, X)
    assert formats.hdf5(path, features="text", label=()).read(1, 3)[0].tolist() == ["bc", "a"]
    assert formats.hdf5(path, features="jpeg", label=()).read(1, 3)[0].tolist() == [b"\0\1", b"\0\1\2"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("outside", "is a link to another file"),
        ("group", "is a link to another file"),
        ("raw", "reads other files"),
        ("virtual", "reads other files"),
        ("compound", r"is of type \[\('a', '<f4'\)\], which is no number"),
        ("single", "is a single value"),
        ("long", "declares 1,125,899,906,842,624 rows in .* bytes"),
        ("huge", "has rows or chunks of .* MiB"),
    ],
)
def test_other_data_sets_are_refused(path, name, message):
    with pytest.raises(DataError, match=rf"a\.h5: the column '{name}' {message}"):
        formats.hdf5(path, features=name, label=())
    with pytest.raises(ConfigurationError, match="names the column 'group/x'"):
        formats.hdf5(path, features="group/x", label=())


def test_a_file_is_read_while_another_program_has_it_locked(path):
    """Storage that is mounted for reading has no locks; a lock of another program does not matter either."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert len(formats.hdf5(path, features="train/x")) == 8


def test_a_damaged_chunk_is_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=X, chunks=(4, 3), compression="gzip", fletcher32=True)
        offset = file["x"].id.get_chunk_info(1).byte_offset
    with (tmp_path / "a.h5").open("r+b") as file:
        file.seek(offset + 4)
        file.write(os.urandom(8))
    source = formats.hdf5(tmp_path / "a.h5")
    assert source.read(0, 4)[0].tolist() == X[:4].tolist()
    with pytest.raises(DataError, match=r"a\.h5 cannot be read as HDF5"):
        source.read(4, 8)
