"""An index that is damaged, edited or forged is refused, and the error names the file."""

from __future__ import annotations

import json
import os

import pytest
from small_datasets import forge_index, ragged, write_dataset

from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.prepared.dataset_writer import DatasetWriter
from distrain.errors import DataError


def test_without_its_index_a_folder_is_no_data_set(tmp_path):
    writer = DatasetWriter(tmp_path, kind="ngram", num_features=50, classes=["a", "b", "c"])
    writer.write("train", [ragged([1])])
    with pytest.raises(DataError, match=r"not a prepared data set.*dataset\.json"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match="not a prepared data set"):
        open_dataset(tmp_path / "absent")


COLUMNS = "train-00000.columns.npy"


def flip_last_byte(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def swap(folder):
    one, two = folder / COLUMNS, folder / "train-00001.columns.npy"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: os.truncate(folder / COLUMNS, 130), f"{COLUMNS} has 130 bytes instead"),
        (lambda folder: flip_last_byte(folder / COLUMNS), f"{COLUMNS} was changed"),
        (lambda folder: (folder / COLUMNS).unlink(), f"{COLUMNS} is missing"),
        (swap, f"{COLUMNS} was changed"),
        (lambda folder: (folder / "dataset.json").write_bytes(b'{"format": "distrain-da'), "dataset.json is damaged"),
        (lambda folder: (folder / "dataset.json").write_bytes(b"[" * 100_000), "dataset.json is damaged"),
        (lambda folder: (folder / "dataset.json").write_bytes(b"\xff\xfe"), "dataset.json is damaged"),
        (lambda folder: (folder / "dataset.json").write_bytes(b"[]"), "dataset.json is damaged"),
        (lambda folder: (folder / "dataset.json").write_bytes(b"{}"), "dataset.json is damaged"),
    ],
)
def test_the_error_names_the_damaged_file(tmp_path, spoil, words):
    write_dataset(tmp_path, [ragged([3, 3, 3, 3])], rows_per_shard=2)
    spoil(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        open_dataset(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "again" in str(caught.value)


def test_an_edited_index_is_noticed(tmp_path):
    write_dataset(tmp_path, [ragged([3])])
    text = (tmp_path / "dataset.json").read_text()
    (tmp_path / "dataset.json").write_text(text.replace('"num_features": 50', '"num_features": 51'))
    with pytest.raises(DataError, match=r"dataset\.json was changed"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    "change",
    [lambda text: text + b" ", lambda text: b"\n" + text, lambda text: text.replace(b"ngram", b"ngra\\u006d")],
)
def test_an_index_that_json_reads_as_before_is_noticed(tmp_path, change):
    write_dataset(tmp_path, [ragged([3])])
    path = tmp_path / "dataset.json"
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert json.loads(path.read_bytes()) == json.loads(before)
    with pytest.raises(DataError, match=r"dataset\.json was changed"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("name", ["vectorizer.json", "vectorizer.safetensors"])
def test_a_damaged_vectorizer_is_noticed(tmp_path, name):
    (tmp_path / "vectorizer").mkdir()
    for each in ("vectorizer.json", "vectorizer.safetensors"):
        (tmp_path / "vectorizer" / each).write_bytes(bytes(range(200)))
    write_dataset(tmp_path, [ragged([3])], vectorizer="vectorizer")
    flip_last_byte(tmp_path / "vectorizer" / name)
    with pytest.raises(DataError, match=rf"vectorizer/{name} was changed: its SHA-256 does not fit"):
        open_dataset(tmp_path)
    (tmp_path / "vectorizer" / name).unlink()
    with pytest.raises(DataError, match=rf"vectorizer/{name} is missing"):
        open_dataset(tmp_path, verify=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A data set, and one of its arrays outside the folder."""
    folder = tmp_path_factory.mktemp("forged") / "data"
    write_dataset(folder, [ragged([3, 2])])
    (folder.parent / "columns.npy").write_bytes((folder / COLUMNS).read_bytes())
    return folder


@pytest.fixture
def forgeable(whole):
    """The same data set for each test, whose index is then written back."""
    index = (whole / "dataset.json").read_bytes()
    yield whole
    (whole / "dataset.json").write_bytes(index)


def test_a_forged_digest_itself_is_accepted(forgeable):
    forge_index(forgeable, lambda index: None)
    open_dataset(forgeable)


def shard(index):
    return index["parts"]["train"]["shards"][0]


def file(index, name="columns"):
    return shard(index)["files"][name]


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.update(format="zip"),
        lambda index: index.update(version=1),
        lambda index: index.update(version=3),
        lambda index: index.update(kind="image"),
        lambda index: index.update(classes=3),
        lambda index: index.update(num_features="many"),
        lambda index: index.update(num_features=float("inf")),
        lambda index: index.update(max_length=[]),
        lambda index: index.update(vectorizer="../elsewhere"),
        lambda index: index.update(vectorizer=".."),
        lambda index: index.update(vectorizer=7),
        lambda index: index.update(vectorizer_files=None),
        lambda index: index.update(vectorizer_files=[]),
        lambda index: index.update(vectorizer_files={"../words": {"bytes": 1, "sha256": "0" * 64}}),
        lambda index: index.update(vectorizer_files={"words": {"bytes": 1}}),
        lambda index: index.update(vectorizer_files={"words": {"bytes": 1, "sha256": "0" * 64}}),  # is not there
        lambda index: index.update(details=5),
        lambda index: index.update(parts=[]),
        lambda index: index["parts"].pop("test"),
        lambda index: index["parts"].update(evil=index["parts"]["test"]),
        lambda index: index["parts"]["train"].update(num_rows=3),
        lambda index: shard(index).update(first_row=1),
        lambda index: shard(index).update(num_rows=0),
        lambda index: shard(index).update(num_rows=2.0),
        lambda index: shard(index).update(num_rows="2"),
        lambda index: shard(index)["files"].pop("labels"),
        lambda index: shard(index)["files"].pop("values"),
        lambda index: shard(index)["files"].update(more=file(index)),
        lambda index: file(index).update(name="../columns.npy"),
        lambda index: file(index).update(name="/dev/zero"),
        lambda index: file(index).update(name=".."),
        lambda index: file(index).update(name=""),
        lambda index: file(index).update(name=5),
        lambda index: file(index).update(name="a\0b"),
        lambda index: file(index).update(bytes="many"),
        lambda index: file(index).update(bytes=-1),
        lambda index: file(index).update(crc32=-1),
        lambda index: file(index).update(sha256=7),
        lambda index: file(index).pop("sha256"),
        lambda index: file(index).update(evil=1),
        lambda index: file(index).pop("crc32"),
    ],
)
def test_a_forged_index_is_refused_as_data(forgeable, change):
    forge_index(forgeable, change)
    with pytest.raises(DataError) as caught:
        open_dataset(forgeable)
    assert str(forgeable) in str(caught.value)


def test_without_verifying_only_sizes_are_compared(tmp_path):
    write_dataset(tmp_path, [ragged([3])])
    flip_last_byte(tmp_path / "train-00000.values.npy")
    assert open_dataset(tmp_path, verify=False).parts["train"].num_rows == 1
    (tmp_path / COLUMNS).write_bytes(b"")
    with pytest.raises(DataError, match="0 bytes"):
        open_dataset(tmp_path, verify=False)
