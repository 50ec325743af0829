"""A folder of arrays: required files, and errors that name a damaged file."""

from __future__ import annotations

import os

import numpy as np
import pytest
import scipy.sparse
from damaged_headers import DAMAGED_HEADERS

from distrain.data.array_folders.folder import is_array_folder, open_array_folder
from distrain.errors import DataError

X = np.arange(12.0, dtype=np.float32).reshape(6, 2)
Y = np.arange(6)


def save(folder, **arrays):
    for name, array in arrays.items():
        np.save(folder / f"{name.replace('__', '.')}.npy", array)


def first_rows(examples):
    return examples.load(np.array([[0, 2]]), np.array([1, 0]))(0, 2)


def test_features_labels_weights_and_a_test_part(tmp_path):
    assert not is_array_folder(tmp_path)
    save(tmp_path, train__x=X, train__y=Y, train__weights=np.full(6, 0.5), test__x=X[:2], test__y=Y[:2])
    assert is_array_folder(tmp_path)
    parts = open_array_folder(tmp_path)
    assert {name: part.num_examples for name, part in parts.items()} == {"train": 6, "test": 2}
    features, labels, weights = first_rows(parts["train"])
    assert (features.tolist(), labels.tolist()) == ([[2.0, 3.0], [0.0, 1.0]], [1, 0])
    assert weights.tolist() == [0.5] * 2
    assert first_rows(parts["test"])[2] == ()


def test_named_inputs_dense_and_sparse(tmp_path):
    save(tmp_path, train__x__left=X, train__y=Y)
    scipy.sparse.save_npz(tmp_path / "train.x.right.npz", scipy.sparse.csr_matrix(X))
    (examples,) = open_array_folder(tmp_path).values()
    features, *_ = first_rows(examples)
    assert sorted(features) == ["left", "right"]
    assert dict(examples.num_columns) == {"right": 2}
    assert features["right"].values.tolist() == [2.0, 3.0, 1.0]


def test_several_labels_and_weights_by_name(tmp_path):
    save(tmp_path, train__x__left=X, train__x__right=X[:, :1], train__y__topic=Y, train__y__mood=Y % 2)
    save(tmp_path, train__weights__topic=np.full(6, 0.5), train__weights__mood=np.full((6, 1), 2.0))
    assert is_array_folder(tmp_path)
    features, labels, weights = first_rows(open_array_folder(tmp_path)["train"])
    assert {name: rows.tolist() for name, rows in features.items()} == {"left": [[2, 3], [0, 1]], "right": [[2], [0]]}
    assert {name: rows.tolist() for name, rows in labels.items()} == {"mood": [1, 0], "topic": [1, 0]}
    assert {name: rows.tolist() for name, rows in weights.items()} == {"mood": [[2], [2]], "topic": [0.5, 0.5]}


def test_the_names_0_1_2_are_positions_of_a_list(tmp_path):
    save(tmp_path, train__y__0=Y, train__y__1=Y + 10, **{f"train__x__{index}": X + index for index in range(11)})
    features, labels, _ = first_rows(open_array_folder(tmp_path)["train"])
    assert [rows[1, 0] for rows in features] == list(range(11))  # position 10 after position 9
    assert [rows.tolist() for rows in labels] == [[1, 0], [11, 10]]


def test_other_files_that_begin_alike_are_no_arrays(tmp_path):
    save(tmp_path, train__x=X, train__y=Y, train__xy=X, train__years=Y)
    (tmp_path / "train.x.npy.part").touch()
    assert first_rows(open_array_folder(tmp_path)["train"])[0].tolist() == [[2.0, 3.0], [0.0, 1.0]]


def test_the_features_are_mapped_not_read(tmp_path):
    """A sparse file of 8 GiB opens without reading, and its last rows can be read."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**29, 4)}
    with (tmp_path / "train.x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 2**33)
    with (tmp_path / "train.y.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {**header, "descr": "|u1", "shape": (2**29,)})
        file.truncate(file.tell() + 2**29)
    (examples,) = open_array_folder(tmp_path).values()
    assert examples.num_examples == 2**29
    features, *_ = examples.load(np.array([[2**29 - 3, 2**29]]), np.array([2]))(0, 1)
    assert features.tolist() == [[0.0] * 4]


def damaged(folder, name, content):
    (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "train.x.npy").unlink(), "not the features"),
        (lambda folder: np.save(folder / "train.x.more.npy", X), "not the features"),
        (lambda folder: damaged(folder, "train.x.npy", b"no array"), "train.x.npy"),
        (lambda folder: damaged(folder, "train.x.npy", b""), "train.x.npy"),
        (lambda folder: damaged(folder, "train.y.npy", (folder / "train.y.npy").read_bytes()[:-9]), "train.y.npy"),
        (lambda folder: np.save(folder / "train.y.npy", np.array([{}] * 6), allow_pickle=True), "without pickle"),
        (lambda folder: np.save(folder / "train.y.npy", Y[:3]), "train: .*3 labels"),
        (lambda folder: np.save(folder / "train.weights.npy", -np.ones(6)), "train: .*negative"),
        (lambda folder: np.save(folder / "test.y.npy", Y), "test.y.npy, but not the features"),
        (
            lambda folder: np.savez(folder / "train.x.npz", X),
            "x.npz beside train.x.npy: .* not the features twice",
        ),
        (
            lambda folder: np.save(folder / "train.y.a.npy", Y),
            "y.npy beside train.y.a.npy: .* not the labels twice",
        ),
        (lambda folder: np.save(folder / "train.y.npy", np.array(list("abcdef"))), "train: The labels are str"),
        (
            lambda folder: np.save(folder / "train.weights.a.npy", Y),
            "a dict of 'a', but the labels are one array",
        ),
    ],
)
def test_the_error_names_the_damaged_file_of_a_folder(tmp_path, spoil, words):
    save(tmp_path, train__x=X, train__y=Y)
    spoil(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        open_array_folder(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("content", DAMAGED_HEADERS)
def test_the_error_names_the_file_of_a_damaged_header(tmp_path, content):
    save(tmp_path, train__x=X)
    damaged(tmp_path, "train.y.npy", content)
    with pytest.raises(DataError, match=r"train\.y\.npy is not an array that NumPy can open without pickle: ."):
        open_array_folder(tmp_path)


def test_any_wrong_byte_of_a_sparse_file_is_a_data_error_or_unnoticed(tmp_path):
    """No other exception than DataError escapes."""
    save(tmp_path, train__y=Y)
    path = tmp_path / "train.x.npz"
    scipy.sparse.save_npz(path, scipy.sparse.csr_matrix(X))
    content = path.read_bytes()
    errors = []
    with path.open("r+b", buffering=0) as file:
        for index, byte in enumerate(content):
            os.pwrite(file.fileno(), bytes([byte ^ 0xFF]), index)
            try:
                open_array_folder(tmp_path)
            except DataError as error:
                errors.append(str(error))
            os.pwrite(file.fileno(), bytes([byte]), index)
    assert len(errors) > len(content) // 2
    assert all(str(tmp_path) in error for error in errors)


@pytest.mark.parametrize("content", [b"no zip", b"", b"PK\x05\x06" + bytes(18)])
def test_the_error_names_a_damaged_sparse_file(tmp_path, content):
    save(tmp_path, train__y=Y)
    damaged(tmp_path, "train.x.npz", content)
    with pytest.raises(DataError, match=r"train\.x\.npz"):
        open_array_folder(tmp_path)
