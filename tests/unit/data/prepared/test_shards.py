"""Rows of a part: read back, gathered in any order, and refused when a value is out of range."""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pytest
from damaged_headers import DAMAGED_HEADERS
from hypothesis import given, settings
from hypothesis import strategies as st
from small_datasets import forge_index, ragged, same_rows, write_dataset

from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.prepared.rows import concatenate_rows
from distrain.errors import DataError


@pytest.mark.parametrize("kind", ["ngram", "sequence"])
def test_what_was_written_is_read(tmp_path, kind):
    rows = ragged([2, 0, 3, 1, 0], values=kind == "ngram")
    dataset = write_dataset(tmp_path, [rows], kind=kind, test=[rows.slice(0, 2)], rows_per_shard=2)
    train = dataset.parts["train"]
    assert (dataset.kind, dataset.num_features, dataset.classes) == (kind, 50, ("a", "b", "ç"))
    assert dataset.details == {"note": 1}
    assert (train.num_rows, dataset.parts["test"].num_rows, len(train.shards)) == (5, 2, 3)
    assert same_rows(train.read(0, 5), rows)
    assert train.row_lengths().tolist() == [2, 0, 3, 1, 0]


@pytest.mark.parametrize("kind", ["ngram", "sequence"])
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_rows_of_spans_are_gathered_in_any_order(tmp_path_factory, kind, data):
    lengths = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=12))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(lengths)), min_size=2))) if len(lengths) > 1 else [0, 1]
    spans = data.draw(st.permutations([list(span) for span in itertools.pairwise(cuts)]))
    within = [row for start, stop in spans for row in range(start, stop)]
    indices = data.draw(st.lists(st.integers(0, len(within) - 1), unique=True))
    whole = ragged(lengths, values=kind == "ngram")
    part = write_dataset(tmp_path_factory.mktemp("gather"), [whole], kind=kind, rows_per_shard=3).parts["train"]
    expected = [whole.slice(within[number], within[number] + 1) for number in indices]
    expected = concatenate_rows(expected) if indices else whole.slice(0, 0)
    assert same_rows(part.gather(np.array(spans), np.array(indices, np.int64)), expected)


COLUMNS = "train-00000.columns.npy"


def replace_array(folder, name, array):
    """Replace an array, and make size and checksum fit."""
    path = folder / f"train-00000.{name}.npy"
    np.save(path, array, allow_pickle=array.dtype == object)
    make_checksum_fit(folder, name)


def make_checksum_fit(folder, name):
    path = folder / f"train-00000.{name}.npy"
    entry = {"bytes": path.stat().st_size, "crc32": zlib.crc32(path.read_bytes())}
    forge_index(folder, lambda index: index["parts"]["train"]["shards"][0]["files"][name].update(entry))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("columns", np.array([0, 1, 50], np.int32)),  # one too high: kernels would write out of bounds
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
    write_dataset(tmp_path, [ragged([1, 2])])
    replace_array(tmp_path, name, array)
    part = open_dataset(tmp_path).parts["train"]
    for read in (lambda: part.read(0, 2), lambda: part.gather(np.array([[0, 2]]), np.array([1, 0]))):
        with pytest.raises(DataError, match=r"train-00000\..*\.npy"):
            read()


@pytest.mark.parametrize("content", DAMAGED_HEADERS)
def test_damaged_headers_are_refused_though_their_checksums_fit(tmp_path, content):
    write_dataset(tmp_path, [ragged([1, 2])])
    (tmp_path / COLUMNS).write_bytes(content)
    make_checksum_fit(tmp_path, "columns")
    part = open_dataset(tmp_path).parts["train"]
    with pytest.raises(DataError, match=rf"{COLUMNS} cannot be read \(.+\)\. Run 'distrain prepare' again"):
        part.read(0, 2)


@pytest.mark.parametrize("swap", [True, False])
def test_a_shard_that_was_replaced_before_its_first_use(tmp_path, swap):
    """`prepare` into the folder of a running job would let the run read rows of two data sets."""
    part = write_dataset(tmp_path, [ragged([3] * 4)], rows_per_shard=2).parts["train"]
    path = tmp_path / "train-00001.labels.npy"
    assert part.read(0, 2).num_rows == 2
    array = np.load(path)
    np.save(tmp_path / "other.npy" if swap else path, array)
    if swap:
        (tmp_path / "other.npy").replace(path)
    with pytest.raises(DataError, match=r"train-00001\.labels\.npy was replaced while the data set was in use"):
        part.read(0, 4)
