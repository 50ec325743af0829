"""Packed rows against layouts by hand and by NumPy; offsets against a walk of the epoch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distrain.data.batches import epoch_batches
from distrain.data.collate import RowOffsets, word_rows
from distrain.data.examples import PackedRows
from distrain.data.plan import EpochPlan
from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.prepared.dataset_writer import DatasetWriter
from distrain.data.prepared.rows import Rows
from distrain.data.row_kernels import chunks_of_rows, pack_rows
from distrain.data.shuffle import epoch_order
from distrain.data.sources import part_examples, rows_examples

SPLITS = np.array([0, 2, 2, 7])
COLUMNS = np.array([8, 9, 1, 2, 3, 4, 5], np.int32)


def test_rows_are_packed_by_unit_with_a_gap_behind_each():
    row_ids, words = pack_rows(SPLITS, COLUMNS, 3)
    assert words.reshape(-1, 3).tolist() == [[8, 9, 0], [0, 0, 0], [0, 0, 0], [1, 2, 3], [4, 5, 0], [0, 0, 0]]
    assert row_ids.tolist() == [0, 0, 1, 2, 2, 2]
    assert (row_ids.dtype, words.dtype) == (np.int32, np.int32)


@given(st.lists(st.lists(st.integers(1, 9), max_size=20), min_size=1, max_size=30), st.sampled_from([1, 3, 9]))
@settings(max_examples=60, deadline=None)
def test_a_batch_is_its_rows_in_any_sizes(rows, pad_multiple):
    splits = np.cumsum([0, *map(len, rows)])
    columns = np.concatenate([*map(np.array, rows), []]).astype(np.int32)
    packed = PackedRows(*pack_rows(splits, columns, pad_multiple))
    assert len(packed.row_ids) == sum(chunks_of_rows(len(row), pad_multiple) for row in rows)
    batch = word_rows(packed, 12, 10)
    assert len(batch.words) == pad_multiple * len(batch.row_ids) <= pad_multiple * len(packed.row_ids) * (1 + 1 / 32)
    by_row = batch.words.reshape(-1, pad_multiple)
    for number, row in enumerate(rows):
        tokens = by_row[batch.row_ids == number].ravel()
        assert tokens[: len(row)].tolist() == row
        assert len(tokens) - len(row) >= pad_multiple
        assert not tokens[len(row) :].any()
    # The gradient of an embedding sums over the tokens in this order.
    places = np.flatnonzero(batch.words)
    assert batch.order.tolist() == places[np.argsort(batch.words[places], kind="stable")].tolist()
    assert batch.touched[batch.segments].tolist() == batch.words[batch.order].tolist()
    assert batch.touched.tolist() == sorted(set(columns.tolist()))
    assert batch.first_token == 12


def sequences(num_rows, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 12, num_rows)
    splits = np.concatenate([[0], np.cumsum(lengths)])
    words = rng.integers(1, 50, splits[-1]).astype(np.int32)
    return Rows(splits, words, None, (np.arange(num_rows) % 2).astype(np.int32))


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """131 rows in shards of 40."""
    folder = tmp_path_factory.mktemp("words")
    writer = DatasetWriter(
        folder, kind="sequence", num_features=50, classes=["a", "b"], max_length=12, rows_per_shard=40
    )
    writer.write("train", [sequences(131)])
    writer.write("test", [])
    writer.finish()
    return part_examples(open_dataset(folder).parts["train"], length=12, pad_multiple=3)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("window_size", [40, 64, 1000])
def test_the_offset_of_a_row_is_the_sum_of_earlier_sizes(examples, shuffle, window_size):
    def order():
        return epoch_order(131, seed=5, epoch=2, window_size=window_size, span_size=8, shuffle=shuffle)

    num_tokens = chunks_of_rows(np.diff(sequences(131).row_splits)[order().examples(range(131))], 3) * 3
    expected = np.cumsum(num_tokens) - num_tokens
    offsets = RowOffsets(examples.row_sizes[""], order())
    for position in (0, 1, 39, 40, 41, 100, 130, 63, 129):  # forward, and back to an earlier window
        assert offsets.offset_of(position) == expected[position]
    assert RowOffsets(examples.row_sizes[""], order()).offset_of(110) == expected[110]  # as after a resume


@given(st.integers(1, 5), st.integers(1, 50), st.integers(0, 131))
@settings(max_examples=40, deadline=None)
def test_the_batches_of_any_plan_make_up_one_stream(examples, num_replicas, batch_size, first_position):
    order = epoch_order(131, seed=5, epoch=2, window_size=64, span_size=8)
    plan = EpochPlan(131, num_replicas, batch_size, first_position)
    words = []
    for batches in epoch_batches(examples, plan, order, replicas=range(num_replicas), epoch=2):
        for batch in batches:
            if batch.num_rows:
                rows = batch.features
                assert rows.first_token == sum(map(len, words)) + expected_start(order, first_position)
                num_tokens = 3 * sum(chunks_of_rows(length, 3) for length in lengths_of(batch))
                words.append(rows.words[:num_tokens])
                assert not rows.words[num_tokens:].any()
    rows, expected = sequences(131), []
    for example in order.examples(range(first_position, 131)):
        row = rows.slice(example, example + 1).columns.tolist()
        expected += row + [0] * (3 + -len(row) % 3)
    assert np.concatenate([np.zeros(0, np.int32), *words]).tolist() == expected


def lengths_of(batch):
    rows, words = batch.features.row_ids, batch.features.words.reshape(-1, 3)
    return np.bincount(rows, np.count_nonzero(words, axis=1), minlength=len(batch.labels)).astype(int)


def expected_start(order, position):
    lengths = np.diff(sequences(131).row_splits)[order.examples(range(position))]
    return int(chunks_of_rows(lengths, 3).sum()) * 3


def test_rows_in_memory_are_packed_too():
    examples = rows_examples(
        Rows(SPLITS, COLUMNS, None, np.zeros(3, np.int32)), kind="sequence", num_features=10, length=9, pad_multiple=3
    )
    features, *_ = examples.load(np.array([[0, 3]]), np.array([0, 2]))(0, 2)
    assert features.words.tolist() == [8, 9, 0, 0, 0, 0, 1, 2, 3, 4, 5, 0, 0, 0, 0]
    assert examples.row_sizes[""](np.array([[2, 3], [0, 2]])).tolist() == [9, 6, 3]
