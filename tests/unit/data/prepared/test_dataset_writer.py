"""The same rows give the same shard files, whatever pieces the writer gets."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_datasets import ragged, same_rows, write_dataset

from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.prepared.dataset_writer import DatasetWriter
from distrain.data.prepared.rows import Rows


@given(
    st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=4),
    st.integers(1, 7),
    st.data(),
)
@settings(max_examples=40, deadline=None)
def test_any_cut_into_pieces_and_shards_gives_the_same_rows(tmp_path_factory, cut, rows_per_shard, data):
    lengths = [length for piece in cut for length in piece]
    starts = np.cumsum([0, *map(sum, cut)])
    pieces = [ragged(piece, first=int(first)) for piece, first in zip(cut, starts[:-1], strict=True)]
    whole = ragged(lengths)._replace(labels=np.concatenate([np.zeros(0, np.int32), *(p.labels for p in pieces)]))
    train = write_dataset(tmp_path_factory.mktemp("cut"), pieces, rows_per_shard=rows_per_shard).parts["train"]
    assert train.num_rows == len(lengths)
    assert all(shard.num_rows <= rows_per_shard for shard in train.shards)
    if lengths:
        start = data.draw(st.integers(0, len(lengths) - 1))
        stop = data.draw(st.integers(start + 1, len(lengths)))
        assert same_rows(train.read(start, stop), whole.slice(start, stop))
        assert train.row_lengths().tolist() == lengths


def test_large_rows_close_a_shard_early(tmp_path, monkeypatch):
    monkeypatch.setattr("distrain.data.prepared.dataset_writer.SHARD_BYTES", 100)
    dataset = write_dataset(tmp_path, [ragged([5] * 10), ragged([40, 1])])
    counts = [shard.num_rows for shard in dataset.parts["train"].shards]
    assert counts[:4] == [2, 2, 2, 2]
    lengths = iter([5] * 10 + [40, 1])
    for count in counts:  # a full shard gets no further row
        assert 8 * sum([next(lengths) for _ in range(count)][:-1]) < 100
    assert dataset.parts["train"].row_lengths().tolist() == [5] * 10 + [40, 1]


def test_the_same_rows_give_the_same_bytes_and_digest(tmp_path):
    rows = ragged([3, 1, 2, 4])
    cuts = [[rows], [rows.slice(0, 1), rows.slice(1, 4)], [rows._replace(labels=np.zeros(4, np.int32))]]
    one, two, other = (write_dataset(tmp_path / str(n), pieces, rows_per_shard=3) for n, pieces in enumerate(cuts))
    assert one.digest == two.digest != other.digest
    files = {path.name: path.read_bytes() for path in one.directory.iterdir()}
    assert files == {path.name: path.read_bytes() for path in two.directory.iterdir()}


@pytest.mark.parametrize("cuts", [[], [1], [3], [5, 6], [2, 4, 6, 8], list(range(1, 12))])
def test_shards_do_not_depend_on_the_cut_into_pieces(tmp_path, monkeypatch, cuts):
    monkeypatch.setattr("distrain.data.prepared.dataset_writer.SHARD_BYTES", 64)  # 16 columns of a sequence
    lengths = [10, 6, 1, 16, 0, 40, 3, 13, 0, 0, 17, 2]  # some fill a shard exactly, and some are longer than a shard
    splits = np.concatenate([[0], np.cumsum(lengths)])
    rows = Rows(splits, np.arange(splits[-1], dtype=np.int32), None, np.arange(12, dtype=np.int32) % 2)
    writer = DatasetWriter(tmp_path, kind="sequence", num_features=200, classes=["a", "b"], rows_per_shard=4)
    writer.write("train", [rows.slice(a, b) for a, b in itertools.pairwise([0, *cuts, 12])])
    writer.write("test", [rows])
    writer.finish(vectorizer=None)
    parts = open_dataset(tmp_path).parts
    sizes = {part: [shard.num_rows for shard in parts[part].shards] for part in ("train", "test")}
    assert sizes["train"] == sizes["test"] == [2, 1, 2, 1, 4, 1, 1]
