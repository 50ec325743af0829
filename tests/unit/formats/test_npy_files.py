"""Folders of `.npy` files and `.npz` files give the examples of the arrays; other files are refused."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest

from distrain import formats
from distrain.errors import ConfigurationError, DataError
from distrain.formats import npy_files

NUM = 100
X = np.random.default_rng(0).normal(size=(NUM, 3)).astype("float32")
Y = np.arange(NUM) % 4


@pytest.fixture
def folder(tmp_path):
    for name, rows in (("a", slice(60)), ("b", slice(60, None))):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "x.npy", np.asfortranarray(X[rows]))
        np.save(tmp_path / name / "y.npy", Y[rows].astype(">i8"))
    np.savez(tmp_path / "plain.npz", x=X, y=Y)
    np.savez_compressed(tmp_path / "packed.npz", x=X, y=Y)
    return tmp_path


@pytest.mark.parametrize(
    "paths", [("a", "b"), ("[ab]",), ("plain.npz",), ("packed.npz",)], ids=["folders", "pattern", "npz", "compressed"]
)
def test_the_examples_are_the_rows_of_the_arrays(folder, paths):
    source = pickle.loads(pickle.dumps(formats.npy([folder / path for path in paths])))
    assert len(source) == NUM
    features, labels = source.read(50, 70)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(features, X[50:70])
    np.testing.assert_array_equal(labels, Y[50:70])
    x, y = source[-1]
    assert (x.tolist(), y) == (X[-1].tolist(), Y[-1])
    assert [y for _, y in source] == Y.tolist()  # an index past the end ends the iteration
    if hasattr(source, "take"):
        chosen = np.array([99, 0, 61, 59, 60, 3])
        np.testing.assert_array_equal(source.take(chosen)[0], X[chosen])
        np.testing.assert_array_equal(source.take(chosen)[1], Y[chosen])


DAMAGES = {
    "cut": (lambda raw: raw[:-100], "x.npy cannot be read as arrays of NumPy"),
    "no array": (lambda raw: b"hello" * 40, "x.npy cannot be read as arrays of NumPy"),
    "huge": (lambda raw: raw.replace(b"(60, 3)", b"(6**9,)"), "x.npy cannot be read as arrays of NumPy"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named(folder, damage):
    change, message = DAMAGES[damage]
    path = folder / "a" / "x.npy"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        formats.npy([folder / "a", folder / "b"])


def test_a_damaged_member_is_named_when_it_is_read(folder):
    raw = bytearray((folder / "packed.npz").read_bytes())
    raw[500:520] = b"\0" * 20
    (folder / "packed.npz").write_bytes(raw)
    with pytest.raises(DataError, match=r"packed\.npz cannot be read"):
        formats.npy(folder / "packed.npz")[0]


def test_a_member_that_declares_less_than_no_rows_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (-1, 3)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.getvalue())
    with pytest.raises(DataError, match=r"a\.npz cannot be read .*it declares the shape \(-1, 3\)"):
        formats.npy(tmp_path / "a.npz")


def test_pickle_is_never_read(folder):
    np.save(folder / "a" / "x.npy", np.array([{}] * 60, object), allow_pickle=True)
    np.savez(folder / "plain.npz", x=np.array([{}] * 60, object))
    for path in ("a", "plain.npz"):
        with pytest.raises(DataError, match=r"is of type object|cannot be read as arrays of NumPy without pickle"):
            formats.npy(folder / path)


def test_a_compressed_file_is_unpacked_within_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(npy_files, "MAX_UNPACKED_BYTES", 2**20)
    np.savez_compressed(tmp_path / "zeros.npz", x=np.zeros((2**11, 1024), np.uint8))
    with pytest.raises(DataError, match=r"zeros\.npz is compressed, .* take 2 MiB, over 1 MiB"):
        formats.npy(tmp_path / "zeros.npz")[0]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X, "y": Y[:50]}, "has 100 rows of 'x', but 50 of 'y'"),
        ({"x": X, "y": np.array(1)}, "'y' is a single value"),
        ({"x": X[:0], "y": Y[:0]}, "has no rows"),
        ({"x": X.astype(complex), "y": Y}, "'x' is of type complex128"),
        ({"indptr": Y, "indices": Y, "data": Y, "format": Y}, "is a sparse matrix"),
    ],
)
def test_arrays_that_are_no_examples_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=rf"a\.npz.*{message}"):
        formats.npy(tmp_path / "a.npz")


def test_files_that_do_not_fit_together_are_refused(folder):
    np.save(folder / "b" / "x.npy", X[60:].astype("float64"))
    with pytest.raises(DataError, match=r"'x' as float64 of shape .*a as float32 of shape"):
        formats.npy([folder / "a", folder / "b"])
    (folder / "b" / "x.npy").unlink()
    with pytest.raises(DataError, match=r"b has no column 'x', unlike .*a"):
        formats.npy([folder / "a", folder / "b"])


def test_files_that_are_not_there_are_refused(folder):
    for paths, message in (("c", "c does not exist"), ("c*", "fits no file"), (".", "is a folder without NumPy files")):
        (folder / "plain.npz").unlink(missing_ok=True)
        (folder / "packed.npz").unlink(missing_ok=True)
        with pytest.raises(DataError, match=message):
            formats.npy(folder / paths)
    with pytest.raises(ConfigurationError, match="named twice"):
        formats.npy([folder / "a", folder / "a"])


@pytest.mark.parametrize(
    ("paths", "named", "words"),
    [
        (None, {}, "None is no path of NumPy files: give a path, a folder, a pattern"),
        ([b"a"], {}, "b'a' is no path of NumPy files"),
        ("a", {"features": 5}, "features= names 5; give the name of a column"),
        ("a", {"label": [["y"]]}, r"label= names \['y'\]; give the name of a column"),
        ("a", {"features": {"one": None, "two": 3}}, "features= names 3; give the name of a column"),
    ],
)
def test_arguments_of_another_type_are_refused(folder, monkeypatch, paths, named, words):
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigurationError, match=words):
        formats.npy(paths, **named)
