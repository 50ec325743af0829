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


def numbers_of(dtype):
    return (np.arange(24).reshape(8, 3) * 3).astype(dtype)


@pytest.mark.parametrize("dtype", ["f2", "<f4", ">f4", "f8", "i1", ">i2", "u4", "<i8", ">u8"])
def test_numbers_in_one_piece_are_mapped(dtype, tmp_path):
    for number in range(2):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file["pad"], file["x"], file["y"] = b"odd", numbers_of(dtype) + number, np.arange(8)
    source = formats.hdf5(str(tmp_path / "*.h5"), features="x")
    rows = np.array([9, 0, 15, 7])
    features, labels = source.take(rows)
    whole = np.concatenate([numbers_of(dtype), numbers_of(dtype) + 1])
    assert (features.tolist(), labels.tolist()) == (whole[rows].tolist(), (rows % 8).tolist())
    assert features.dtype == np.dtype(dtype).newbyteorder("=")
    assert source.read(6, 10)[0].tolist() == whole[6:10].tolist()


def _chunked(file):
    file.create_dataset("x", data=X, chunks=(4, 3))


def _packed(file):
    file.create_dataset("x", data=X, compression="gzip")


def _never_written(file):
    file.create_dataset("x", (8, 3), "f8", fillvalue=2.5)


def _flags(file):
    file["x"] = X > 5


def _compact(file):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    space, kind = h5py.h5s.create_simple(X.shape), h5py.h5t.NATIVE_DOUBLE
    h5py.h5d.create(file.id, b"x", kind, space, properties).write(h5py.h5s.ALL, h5py.h5s.ALL, X)


def _few_bits(file):
    kind = h5py.h5t.STD_I16LE.copy()
    kind.set_precision(9)
    dataset = h5py.h5d.create(file.id, b"x", kind, h5py.h5s.create_simple(X.shape))
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, X.astype("i2"))


@pytest.mark.parametrize("write", [_chunked, _packed, _never_written, _flags, _compact, _few_bits])
def test_other_storage_is_read_by_hdf5(write, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write(file)
    with h5py.File(tmp_path / "a.h5") as file:
        wanted = file["x"][1:7]
    source = formats.hdf5(tmp_path / "a.h5")
    assert not hasattr(source, "take")
    assert source.read(1, 7)[0].tolist() == wanted.tolist()


def test_a_user_block_does_not_shift_values(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512) as file:
        file["x"] = X
    assert formats.hdf5(tmp_path / "a.h5").read(0, 8)[0].tolist() == X.tolist()


def test_one_file_in_pieces_is_enough_to_read_all_by_ranges(tmp_path):
    for name, write in (("a", lambda file: file.__setitem__("x", X)), ("b", _chunked)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            write(file)
    source = formats.hdf5(str(tmp_path / "*.h5"))
    assert not hasattr(source, "take")
    assert source.read(4, 12)[0].tolist() == np.concatenate([X[4:], X[:4]]).tolist()
