"""Prepared data on disk: written and read back, and every kind of damage told by file."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import zlib

import numpy as np
import pytest
from damaged_headers import DAMAGED_HEADERS
from hypothesis import given, settings
from hypothesis import strategies as st

from distrain.data.dataset_index import open_dataset
from distrain.data.dataset_writer import DatasetWriter
from distrain.data.rows import Rows, RowSpan, concatenate_rows, pick_rows
from distrain.errors import DataError


def ragged(lengths, *, first=0, values=True):
    """Rows of these lengths; entry e of all rows together has column e % 50 and value e."""
    splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    entries = np.arange(first, first + splits[-1])
    floats = entries.astype(np.float32) if values else None
    return Rows(splits, (entries % 50).astype(np.int32), floats, (np.arange(len(lengths)) % 3).astype(np.int32))


def write(folder, blocks, *, kind="ngram", test=(), **sizes):
    folder.mkdir(exist_ok=True)
    writer = DatasetWriter(folder, kind=kind, num_features=50, classes=["a", "b", "ç"], max_length=None, **sizes)
    writer.write("train", iter(blocks))
    writer.write("test", iter(test))
    writer.finish(details={"note": 1})
    return open_dataset(folder)


def same(rows, expected):
    pairs = zip(rows, expected, strict=True)
    return all((a is None and b is None) or (a.dtype == b.dtype and np.array_equal(a, b)) for a, b in pairs)


@pytest.mark.parametrize("kind", ["ngram", "sequence"])
def test_what_was_written_is_read(tmp_path, kind):
    rows = ragged([2, 0, 3, 1, 0], values=kind == "ngram")
    dataset = write(tmp_path, [rows], kind=kind, test=[rows.slice(0, 2)], rows_per_shard=2)
    train = dataset.parts["train"]
    assert (dataset.kind, dataset.num_features, dataset.classes) == (kind, 50, ("a", "b", "ç"))
    assert dataset.details == {"note": 1}
    assert (train.num_rows, dataset.parts["test"].num_rows, len(train.shards)) == (5, 2, 3)
    assert same(train.read(0, 5), rows)
    assert train.labels.tolist() == [0, 1, 2, 0, 1]
    assert train.row_lengths().tolist() == [2, 0, 3, 1, 0]


@given(
    st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=5),
    st.integers(1, 7),
    st.data(),
)
@settings(max_examples=40, deadline=None)
def test_any_cut_into_blocks_and_shards_gives_the_same_rows(tmp_path_factory, blocks, rows_per_shard, data):
    lengths = [length for block in blocks for length in block]
    starts = np.cumsum([0, *(sum(block) for block in blocks)])
    pieces = [ragged(block, first=int(first)) for block, first in zip(blocks, starts[:-1], strict=True)]
    whole = ragged(lengths)._replace(labels=np.concatenate([np.zeros(0, np.int32), *(p.labels for p in pieces)]))
    train = write(tmp_path_factory.mktemp("cut"), pieces, rows_per_shard=rows_per_shard).parts["train"]
    assert train.num_rows == len(lengths)
    assert all(shard.num_rows <= rows_per_shard for shard in train.shards)
    if lengths:
        start = data.draw(st.integers(0, len(lengths) - 1))
        stop = data.draw(st.integers(start + 1, len(lengths)))
        assert same(train.read(start, stop), whole.slice(start, stop))
        assert train.row_lengths().tolist() == lengths


def test_concatenated_slices_are_the_whole():
    rows = ragged([1, 0, 4, 2])
    assert same(concatenate_rows([rows.slice(0, 1), rows.slice(1, 3), rows.slice(3, 4)]), rows)


@pytest.mark.parametrize("kind", ["ngram", "sequence"])
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_rows_of_runs_are_gathered_in_any_order(tmp_path_factory, kind, data):
    lengths = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=20))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(lengths)), min_size=2))) if len(lengths) > 1 else [0, 1]
    runs = data.draw(st.permutations([list(run) for run in itertools.pairwise(cuts)]))
    within = [row for start, stop in runs for row in range(start, stop)]
    chosen = data.draw(st.lists(st.integers(0, len(within) - 1), unique=True))
    whole = ragged(lengths, values=kind == "ngram")
    part = write(tmp_path_factory.mktemp("gather"), [whole], kind=kind, rows_per_shard=3).parts["train"]
    expected = [whole.slice(within[number], within[number] + 1) for number in chosen]
    expected = concatenate_rows(expected) if chosen else whole.slice(0, 0)
    assert same(part.gather(np.array(runs), np.array(chosen, np.int64)), expected)


def test_picking_tells_the_highest_column_and_takes_negative_ones_as_high():
    rows = ragged([1, 2])._replace(columns=np.array([3, 7, -1], np.int32))
    spans = [RowSpan(rows, 1, 2), RowSpan(rows, 0, 1)]  # its rows the other way round
    assert pick_rows(spans, np.array([1]))[1] == 3
    assert pick_rows(spans, np.array([1, 0]))[1] == 2**32 - 1
    assert pick_rows(spans, np.array([], np.int64))[1] == 0


def test_large_rows_close_a_shard_early(tmp_path, monkeypatch):
    monkeypatch.setattr("distrain.data.dataset_writer.SHARD_BYTES", 100)
    dataset = write(tmp_path, [ragged([5] * 10), ragged([40, 1])])
    counts = [shard.num_rows for shard in dataset.parts["train"].shards]
    assert counts[:4] == [2, 2, 2, 2]
    lengths = iter([5] * 10 + [40, 1])
    for count in counts:  # no row was added to a full shard
        assert 8 * sum([next(lengths) for _ in range(count)][:-1]) < 100
    assert dataset.parts["train"].row_lengths().tolist() == [5] * 10 + [40, 1]


def test_the_same_rows_give_the_same_bytes_and_digest(tmp_path):
    rows = ragged([3, 1, 2, 4])
    blocks = [[rows], [rows.slice(0, 1), rows.slice(1, 4)], [rows._replace(labels=np.zeros(4, np.int32))]]
    one, two, other = (write(tmp_path / str(n), block, rows_per_shard=3) for n, block in enumerate(blocks))
    assert one.digest == two.digest != other.digest
    files = {path.name: path.read_bytes() for path in one.directory.iterdir()}
    assert files == {path.name: path.read_bytes() for path in two.directory.iterdir()}


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
def test_damage_is_told_by_file(tmp_path, spoil, words):
    write(tmp_path, [ragged([3, 3, 3, 3])], rows_per_shard=2)
    spoil(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        open_dataset(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "again" in str(caught.value)


def test_an_edited_index_is_noticed(tmp_path):
    write(tmp_path, [ragged([3])])
    text = (tmp_path / "dataset.json").read_text()
    (tmp_path / "dataset.json").write_text(text.replace('"num_features": 50', '"num_features": 51'))
    with pytest.raises(DataError, match=r"dataset\.json was changed"):
        open_dataset(tmp_path)


def forge(folder, change):
    """What an attacker can do: change the index, and make its digest fit again."""
    index = json.loads((folder / "dataset.json").read_text())
    change(index)
    del index["digest"]
    index["digest"] = hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()
    (folder / "dataset.json").write_text(json.dumps(index))


def shard(index):
    return index["parts"]["train"]["shards"][0]


def file(index, name="columns"):
    return shard(index)["files"][name]


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.update(format="zip"),
        lambda index: index.update(version=2),
        lambda index: index.update(kind="image"),
        lambda index: index.update(classes=3),
        lambda index: index.update(num_features="many"),
        lambda index: index.update(max_length=[]),
        lambda index: index.update(vectorizer="../elsewhere"),
        lambda index: index.update(vectorizer=".."),
        lambda index: index.update(vectorizer=7),
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
        lambda index: file(index).update(crc32=None),
        lambda index: file(index).update(evil=1),
        lambda index: file(index).pop("crc32"),
    ],
)
def test_a_forged_index_is_refused_as_data(tmp_path, change):
    folder = tmp_path / "data"
    write(folder, [ragged([3, 2])])
    (tmp_path / "columns.npy").write_bytes((folder / COLUMNS).read_bytes())  # what a path out of the folder would reach
    forge(folder, lambda index: None)
    open_dataset(folder)  # the forged digest itself is accepted
    forge(folder, change)
    with pytest.raises(DataError) as caught:
        open_dataset(folder)
    assert str(folder) in str(caught.value)


def replace_array(folder, name, array):
    """Put another array in its place, with its size and checksum."""
    path = folder / f"train-00000.{name}.npy"
    np.save(path, array, allow_pickle=array.dtype == object)
    make_checksum_fit(folder, name)


def make_checksum_fit(folder, name):
    path = folder / f"train-00000.{name}.npy"
    entry = {"bytes": path.stat().st_size, "crc32": zlib.crc32(path.read_bytes())}
    forge(folder, lambda index: file(index, name).update(entry))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("columns", np.array([0, 1, 50], np.int32)),  # one column too far: kernels would write beyond their arrays
        ("columns", np.array([0, 1, -1], np.int32)),
        ("columns", np.array([0, 1], np.int32)),
        ("columns", np.array([0, 1, 2], np.int64)),
        ("columns", np.array([[0, 1, 2]], np.int32)),
        ("columns", np.array([0, 1, {}], object)),
        ("values", np.ones(2, np.float32)),
        ("values", np.ones(3, np.float64)),
        ("labels", np.array([0, 3], np.int32)),
        ("labels", np.array([-1, 0], np.int32)),
        ("labels", np.array([0], np.int32)),
        ("row_splits", np.array([0, 1, 9], np.int64)),
        ("row_splits", np.array([1, 2, 3], np.int64)),
        ("row_splits", np.array([0, 5, 3], np.int64)),
        ("row_splits", np.array([0, -1, 3], np.int64)),
        ("row_splits", np.array([0, 3], np.int64)),
        ("row_splits", np.array([], np.int64)),
    ],
)
def test_arrays_out_of_range_are_refused_though_their_checksums_fit(tmp_path, name, array):
    write(tmp_path, [ragged([1, 2])])
    replace_array(tmp_path, name, array)
    part = open_dataset(tmp_path).parts["train"]
    for read in (lambda: part.read(0, 2), lambda: part.gather(np.array([[0, 2]]), np.array([1, 0]))):
        with pytest.raises(DataError, match=r"train-00000\..*\.npy"):
            read()


@pytest.mark.parametrize("content", DAMAGED_HEADERS)
def test_headers_that_make_no_sense_are_refused_though_their_checksums_fit(tmp_path, content):
    write(tmp_path, [ragged([1, 2])])
    (tmp_path / COLUMNS).write_bytes(content)
    make_checksum_fit(tmp_path, "columns")
    part = open_dataset(tmp_path).parts["train"]
    with pytest.raises(DataError, match=rf"{COLUMNS} cannot be read \(.+\)\. Run 'distrain prepare' again"):
        part.read(0, 2)


def test_without_verifying_only_sizes_are_compared(tmp_path):
    write(tmp_path, [ragged([3])])
    flip_last_byte(tmp_path / "train-00000.values.npy")
    assert open_dataset(tmp_path, verify=False).parts["train"].num_rows == 1
    (tmp_path / COLUMNS).write_bytes(b"")
    with pytest.raises(DataError, match="0 bytes"):
        open_dataset(tmp_path, verify=False)


@pytest.mark.parametrize("cuts", [[], [1], [3], [5, 6], [2, 4, 6, 8], list(range(1, 12))])
def test_shards_do_not_depend_on_how_rows_were_handed_in(tmp_path, monkeypatch, cuts):
    monkeypatch.setattr("distrain.data.dataset_writer.SHARD_BYTES", 64)  # 16 columns of a sequence
    lengths = [10, 6, 1, 16, 0, 40, 3, 13, 0, 0, 17, 2]  # exactly full, and longer than a shard
    splits = np.concatenate([[0], np.cumsum(lengths)])
    rows = Rows(splits, np.arange(splits[-1], dtype=np.int32), None, np.arange(12, dtype=np.int32) % 2)
    writer = DatasetWriter(tmp_path, kind="sequence", num_features=200, classes=["a", "b"], rows_per_shard=4)
    writer.write("train", [rows.slice(a, b) for a, b in itertools.pairwise([0, *cuts, 12])])
    writer.write("test", [rows])
    writer.finish(vectorizer=None)
    parts = open_dataset(tmp_path).parts
    sizes = {part: [shard.num_rows for shard in parts[part].shards] for part in ("train", "test")}
    assert sizes["train"] == sizes["test"] == [2, 1, 2, 1, 4, 1, 1]
