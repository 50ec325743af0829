"""Batches: each example once with its weight; sparse, packed and named inputs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from small_datasets import numbered

from distrain.batch import SparseRows
from distrain.data.batches import epoch_batches, sample_batch
from distrain.data.plan import EpochPlan
from distrain.data.prepared.rows import Rows
from distrain.data.shuffle import epoch_order
from distrain.data.sources import array_examples, rows_examples


def fed(examples, plan, *, seed=0, epoch=0, **settings):
    order = epoch_order(plan.num_examples, seed=seed, epoch=epoch, **settings)
    return list(epoch_batches(examples, plan, order, replicas=range(plan.num_replicas), epoch=epoch))


def dense_of(rows, num_rows, num_columns):
    return scipy.sparse.coo_array((rows.values, (rows.row_ids, rows.columns)), (num_rows, num_columns)).toarray()


@given(st.integers(1, 80), st.integers(1, 7), st.integers(1, 15), st.integers(0, 2**64 - 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_each_example_is_fed_once_with_its_own_weight(n, num_replicas, batch_size, seed, weighted):
    weights = np.random.default_rng(0).uniform(0.5, 2, n).astype(np.float32) if weighted else None
    plan = EpochPlan(n, num_replicas, batch_size)
    steps = fed(numbered(n, weights), plan, seed=seed, epoch=5, window_size=20, span_size=4)
    assert len(steps) == plan.num_steps
    seen = {}
    for step, batches in enumerate(steps):
        assert len(batches) == num_replicas
        total = sum(int(batch.num_rows) for batch in batches)
        for replica, batch in enumerate(batches):
            own_weights = batch.weights if weighted else np.ones(len(batch.labels), np.float32)
            assert weighted or batch.weights == ()
            assert len(batch.labels) == len(own_weights) == len(batch.features) == max(1, batch.num_rows)
            assert batch.epoch == 5
            assert batch.global_rows == total == len(plan.global_positions(step))
            assert batch.features[:, 0].tolist() == batch.labels.tolist()
            if plan.positions(step, replica):
                assert batch.first_position == plan.positions(step, replica).start
            for label, weight in zip(batch.labels.tolist(), own_weights.tolist(), strict=True):
                if batch.num_rows:
                    assert label not in seen
                    seen[label] = weight
    expected = np.ones(n, np.float32) if weights is None else weights
    assert [seen[number] for number in range(n)] == expected.tolist()


def test_short_and_empty_batches_at_the_end():
    ((a, b, c),) = fed(numbered(5, [5, 4, 3, 2, 1]), EpochPlan(5, 3, 4), shuffle=False)
    assert a.labels.tolist() == [0, 1, 2, 3]
    assert b.labels.tolist() == [4]
    assert (c.labels.tolist(), c.weights.tolist()) == ([0], [5.0])  # the replica takes part
    assert [batch.num_rows for batch in (a, b, c)] == [4, 1, 0]  # and adds nothing
    assert [batch.global_rows for batch in (a, b, c)] == [5, 5, 5]


def test_zero_weights_are_fed_as_zero():
    ((batch,),) = fed(numbered(3, [0, 2, 0.5]), EpochPlan(3, 1, 8), shuffle=False)
    assert batch.weights.tolist() == [0.0, 2.0, 0.5]
    assert (batch.num_rows, batch.global_rows) == (3, 3)


@given(st.integers(1, 80), st.integers(1, 7), st.integers(1, 15), st.data())
@settings(max_examples=60)
def test_a_process_with_some_replicas_feeds_the_plans_positions(n, num_replicas, batch_size, data):
    """Also after a resume, with several windows in a step, and with several steps in a window."""
    first, last = sorted(data.draw(st.tuples(*2 * [st.integers(0, num_replicas - 1)])))
    replicas = range(first, last + 1)
    plan = EpochPlan(n, num_replicas, batch_size, first_position=data.draw(st.integers(0, n - 1)))
    order = epoch_order(
        n, seed=2, epoch=0, window_size=data.draw(st.integers(1, 40)), span_size=data.draw(st.integers(1, 12))
    )
    steps = list(epoch_batches(numbered(n), plan, order, replicas=replicas))
    assert len(steps) == plan.num_steps
    for step, batches in enumerate(steps):
        for replica, batch in zip(replicas, batches, strict=True):
            own = order.examples(plan.positions(step, replica)).tolist()
            assert batch.labels[: batch.num_rows].tolist() == own


def test_first_entry_counts_the_entries_of_all_earlier_rows():
    """Also for two sparse inputs and several windows; the entry that pads an empty last row does not count."""
    matrix = scipy.sparse.random(60, 7, density=0.2, format="csr", dtype=np.float32, rng=5)
    examples = array_examples({"a": matrix, "b": matrix[:, :3].tocsr()}, np.arange(60))
    order = epoch_order(60, seed=4, epoch=1, window_size=16, span_size=4).examples(range(60))
    for batch in itertools.chain(*fed(examples, EpochPlan(60, 2, 7), seed=4, epoch=1, window_size=16, span_size=4)):
        if not batch.num_rows:
            continue  # the example of an idle replica
        before = order[: batch.first_position]
        assert batch.features["a"].first_entry == matrix[before].nnz
        assert batch.features["b"].first_entry == matrix[before][:, :3].nnz


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_sparse_batches_equal_scipys_rows(seed, num_replicas, batch_size):
    matrix = scipy.sparse.random(37, 11, density=0.15, format="csr", dtype=np.float32, rng=seed)  # with empty rows
    examples = array_examples(matrix, np.arange(37))
    assert dict(examples.num_columns) == {"": 11}
    for batch in itertools.chain(
        *fed(examples, EpochPlan(37, num_replicas, batch_size), seed=seed, window_size=8, span_size=2)
    ):
        rows, size = batch.features, len(batch.labels)
        assert isinstance(rows, SparseRows)
        assert np.array_equal(dense_of(rows, size, 11), matrix[batch.labels].toarray())
        assert np.all(np.diff(rows.row_ids) >= 0)
        assert rows.row_ids[-1] == size - 1  # a segment sum then has as many rows as the batch


def test_rows_without_entries_are_fed():
    examples = array_examples(scipy.sparse.csr_matrix((4, 3), dtype=np.float32), np.arange(4))
    ((batch,),) = fed(examples, EpochPlan(4, 1, 4))
    assert dense_of(batch.features, 4, 3).tolist() == np.zeros((4, 3)).tolist()


def test_inputs_of_a_dict_stay_aligned():
    matrix = scipy.sparse.random(30, 5, density=0.4, format="csr", dtype=np.float32, rng=1)
    inputs = {"image": np.arange(30 * 4, dtype=np.uint8).reshape(30, 2, 2), "words": matrix}
    examples = array_examples(inputs, np.arange(30))
    assert dict(examples.num_columns) == {"words": 5}
    for batch in itertools.chain(*fed(examples, EpochPlan(30, 2, 4), window_size=7, span_size=3)):
        assert set(batch.features) == {"image", "words"}
        assert np.array_equal(batch.features["image"], inputs["image"][batch.labels])
        assert np.array_equal(dense_of(batch.features["words"], len(batch.labels), 5), matrix[batch.labels].toarray())


@pytest.mark.parametrize("kind", ["ngram", "sequence", "packed"])
def test_batches_keep_their_values_when_the_next_window_is_loaded(kind):
    """Windows reuse memory, so batches must not refer to the memory of their window."""
    matrix = scipy.sparse.random(90, 30, density=0.3, format="csr", dtype=np.float32, rng=1)
    values = matrix.data if kind == "ngram" else None
    rows = Rows(matrix.indptr.astype(np.int64), matrix.indices + 1, values, np.arange(90, dtype=np.int32))
    layout = {"kind": "ngram" if kind == "ngram" else "sequence", "pad_multiple": 2 if kind == "packed" else None}
    examples = rows_examples(rows, num_features=31, length=30, **layout)
    for batch in itertools.chain(*fed(examples, EpochPlan(90, 2, 4), window_size=20, span_size=5)):
        features, expected = batch.features, matrix[batch.labels]
        if kind == "ngram":
            assert np.array_equal(dense_of(features, len(batch.labels), 31)[:, 1:], expected.toarray())
            continue
        if kind == "packed":
            features = [features.words[np.repeat(features.row_ids, 2) == row] for row in range(len(batch.labels))]
        for words, row in zip(features, expected, strict=True):
            assert words[words > 0].tolist() == (row.indices + 1).tolist()


def test_the_sample_is_the_first_two_examples():
    assert sample_batch(numbered(9)).labels.tolist() == [0, 1]
    assert sample_batch(numbered(1)).labels.tolist() == [0]
