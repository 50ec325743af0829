"""Saved vectorizers: the same rows and bytes, and refused damage."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from ngram_learning import learn, mixed_texts
from safetensors.numpy import load_file, save_file

from distrain.errors import DataError
from distrain.text.vectorizers.load_vectorizer import load_vectorizer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A vectorizer, and the folder to which it was saved."""
    folder = tmp_path_factory.mktemp("made")
    texts, labels = mixed_texts(200, 3, 1)
    vectorizer, _ = learn(folder / "scratch", texts, labels, top_k=40)
    vectorizer.save(folder / "vectorizer")
    return vectorizer, folder / "vectorizer"


@pytest.fixture
def saved(made, tmp_path):
    """The same, with a copy of the folder that a test may damage."""
    vectorizer, folder = made
    return vectorizer, shutil.copytree(folder, tmp_path / "vectorizer")


def test_a_saved_vectorizer_does_the_same(saved):
    vectorizer, folder = saved
    loaded = load_vectorizer(folder)
    texts, _ = mixed_texts(100, 3, 2)
    assert loaded.feature_names() == vectorizer.feature_names()
    assert loaded.num_features == 40
    for ours, theirs in zip(vectorizer.transform(texts), loaded.transform(texts), strict=True):
        assert np.array_equal(ours, theirs)


def test_learning_twice_writes_the_same_bytes(saved, tmp_path):
    texts, labels = mixed_texts(200, 3, 1)
    vectorizer, _ = learn(tmp_path / "again", texts, labels, top_k=40)
    vectorizer.save(tmp_path / "other")
    files = sorted(path.name for path in saved[1].iterdir())
    assert files == ["vectorizer.json", "vectorizer.safetensors"]
    for name in files:
        assert (saved[1] / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def set_entry(name, index, value):
    def change(arrays):
        arrays[name][index] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.pop("keys"),
        lambda arrays: arrays.update(keys=arrays["keys"].astype(np.int32)),
        lambda arrays: arrays.update(keys=arrays["keys"][:, None]),
        lambda arrays: arrays.update(keys=arrays["keys"][:0]),
        lambda arrays: arrays.update(row_counts=arrays["row_counts"][:-1]),
        lambda arrays: arrays.update(chosen=arrays["chosen"][:-1]),
        set_entry("keys", -1, 2**62),
        set_entry("keys", -1, (2**31 - 1) << 32),
        set_entry("keys", 0, -1),
        set_entry("keys", 1, 0xFFFFFFFF),
        set_entry("row_counts", 0, 0),
        set_entry("row_counts", 0, 201),
        set_entry("chosen", -1, 2**40),
        set_entry("chosen", 0, -1),
        set_entry("word_ends", -1, 2**40),
        set_entry("word_ends", 0, -5),
        set_entry("word_ends", 0, 10**6),
        set_entry("word_pool", 0, 0xFF),
    ],
)
def test_arrays_out_of_range_are_refused(saved, change):
    path = saved[1] / "vectorizer.safetensors"
    arrays = {name: np.array(array) for name, array in load_file(path).items()}
    change(arrays)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    with pytest.raises(DataError, match=r"vectorizer\.safetensors.*prepare the data again"):
        load_vectorizer(saved[1])


@pytest.mark.parametrize(
    ("key", "value"),
    [("format", "x"), ("version", 2), ("kind", "other"), ("num_rows", -1), ("num_rows", True), ("num_features", 3)],
)
def test_headers_that_lie_are_refused(saved, key, value):
    path = saved[1] / "vectorizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(DataError, match="prepare the data again"):
        load_vectorizer(saved[1])


@pytest.mark.parametrize("name", ["vectorizer.json", "vectorizer.safetensors"])
@pytest.mark.parametrize("contents", [None, b"", b"[" * 100_000, b"\xff\xfe", b"{}", b"[1]", b"\xff" * 64])
def test_missing_and_damaged_files_are_refused(saved, name, contents):
    path = saved[1] / name
    path.unlink()
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(DataError):
        load_vectorizer(saved[1])


def test_a_truncated_file_is_refused(saved):
    path = saved[1] / "vectorizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError):
        load_vectorizer(saved[1])
