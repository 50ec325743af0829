"""Batches: each example fed once with its weight; prefetching; the generator for a user's own loop."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import distrain
from distrain.batch import SparseRows
from distrain.data.batch_generator import BatchGenerator, validation_steps
from distrain.data.batches import epoch_batches, sample_batch
from distrain.data.plan import EpochPlan
from distrain.data.prefetch import PREFETCH_BYTES, prefetched
from distrain.data.rows import Rows
from distrain.data.shuffle import epoch_order
from distrain.data.sources import array_examples, rows_examples
from distrain.errors import ConfigurationError


def fed(examples, plan, *, seed=0, epoch=0, **settings):
    order = epoch_order(plan.num_examples, seed=seed, epoch=epoch, **settings)
    return list(epoch_batches(examples, plan, order, replicas=range(plan.num_replicas), epoch=epoch))


def numbered(n, weights=None):
    """Examples whose label and features are their number."""
    return array_examples(np.arange(n, dtype=np.float32)[:, None], np.arange(n), weights)


def dense_of(rows, num_rows, num_columns):
    return scipy.sparse.coo_array((rows.values, (rows.row_ids, rows.columns)), (num_rows, num_columns)).toarray()


@given(st.integers(1, 150), st.integers(1, 7), st.integers(1, 30), st.integers(0, 2**64 - 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_each_example_is_fed_once_with_its_own_weight(n, num_replicas, batch_size, seed, weighted):
    weights = np.random.default_rng(0).uniform(0.5, 2, n).astype(np.float32) if weighted else None
    plan = EpochPlan(n, num_replicas, batch_size)
    steps = fed(numbered(n, weights), plan, seed=seed, epoch=5, block=40, run=4)
    assert len(steps) == plan.num_steps
    seen = {}
    for step, batches in enumerate(steps):
        assert len(batches) == num_replicas
        total = sum(float(batch.weights.sum(dtype=np.float64)) for batch in batches)
        for replica, batch in enumerate(batches):
            assert batch.weights.dtype == np.float32
            assert len(batch.labels) == len(batch.weights) == len(batch.features) >= 1
            assert batch.epoch == 5
            assert batch.global_weight == pytest.approx(total, rel=1e-6)
            assert batch.features[:, 0].tolist() == batch.labels.tolist()
            if plan.positions(step, replica):
                assert batch.first_position == plan.positions(step, replica).start
            for label, weight in zip(batch.labels.tolist(), batch.weights.tolist(), strict=True):
                if weight > 0:
                    assert label not in seen
                    seen[label] = weight
    expected = np.ones(n, np.float32) if weights is None else weights
    assert [seen[number] for number in range(n)] == expected.tolist()


def test_short_and_empty_batches_at_the_end():
    ((a, b, c),) = fed(numbered(5), EpochPlan(5, 3, 4), shuffle=False)
    assert a.labels.tolist() == [0, 1, 2, 3]
    assert b.labels.tolist() == [4]
    assert c.weights.tolist() == [0.0]  # takes part, adds nothing
    assert [batch.global_weight for batch in (a, b, c)] == [5.0, 5.0, 5.0]


def test_zero_weights_are_fed_as_zero():
    ((batch,),) = fed(numbered(3, [0, 2, 0.5]), EpochPlan(3, 1, 8), shuffle=False)
    assert batch.weights.tolist() == [0.0, 2.0, 0.5]
    assert batch.global_weight == 2.5


def test_replicas_are_fed_alone_as_together():
    examples, plan = numbered(50), EpochPlan(50, 3, 4)
    order = epoch_order(50, seed=2, epoch=0)
    alone = [list(epoch_batches(examples, plan, order, replicas=range(r, r + 1))) for r in range(3)]
    for step, batches in enumerate(fed(examples, plan, seed=2)):
        for replica, batch in enumerate(batches):
            assert batch.labels.tolist() == alone[replica][step][0].labels.tolist()


def test_sparse_rows_know_how_many_entries_of_the_epoch_are_before_them():
    """Also where there are two sparse inputs, and blocks; an entry that was added at the end of a batch is none."""
    matrix = scipy.sparse.random(60, 7, density=0.2, format="csr", dtype=np.float32, rng=5)
    examples = array_examples({"a": matrix, "b": matrix[:, :3].tocsr()}, np.arange(60))
    order = epoch_order(60, seed=4, epoch=1, block=16, run=4).examples(range(60))
    for batch in itertools.chain(*fed(examples, EpochPlan(60, 2, 7), seed=4, epoch=1, block=16, run=4)):
        if not batch.weights.any():
            continue  # of a replica that has nothing left
        before = order[: batch.first_position]
        assert batch.features["a"].first_entry == matrix[before].nnz
        assert batch.features["b"].first_entry == matrix[before][:, :3].nnz


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_sparse_batches_are_scipys_rows(seed, num_replicas, batch_size):
    matrix = scipy.sparse.random(37, 11, density=0.15, format="csr", dtype=np.float32, rng=seed)  # with empty rows
    examples = array_examples(matrix, np.arange(37))
    assert dict(examples.num_columns) == {"": 11}
    for batch in itertools.chain(*fed(examples, EpochPlan(37, num_replicas, batch_size), seed=seed, block=8, run=2)):
        rows, size = batch.features, len(batch.labels)
        assert isinstance(rows, SparseRows)
        assert np.array_equal(dense_of(rows, size, 11), matrix[batch.labels].toarray())
        assert np.all(np.diff(rows.row_ids) >= 0)
        assert rows.row_ids[-1] == size - 1  # so that a sum over rows has as many rows as the batch


def test_rows_without_any_entry_are_fed():
    examples = array_examples(scipy.sparse.csr_matrix((4, 3), dtype=np.float32), np.arange(4))
    ((batch,),) = fed(examples, EpochPlan(4, 1, 4))
    assert dense_of(batch.features, 4, 3).tolist() == np.zeros((4, 3)).tolist()


def test_a_dict_of_inputs_keeps_them_together():
    matrix = scipy.sparse.random(30, 5, density=0.4, format="csr", dtype=np.float32, rng=1)
    inputs = {"image": np.arange(30 * 4, dtype=np.uint8).reshape(30, 2, 2), "words": matrix}
    examples = array_examples(inputs, np.arange(30))
    assert dict(examples.num_columns) == {"words": 5}
    for batch in itertools.chain(*fed(examples, EpochPlan(30, 2, 4), block=7, run=3)):
        assert set(batch.features) == {"image", "words"}
        assert np.array_equal(batch.features["image"], inputs["image"][batch.labels])
        assert np.array_equal(dense_of(batch.features["words"], len(batch.labels), 5), matrix[batch.labels].toarray())


def test_one_block_is_held_at_a_time_and_read_once():
    """Memory is bounded by the block: each block is loaded once, in order, and never more than its size."""
    loaded = []
    examples = numbered(100)

    def load(runs, chosen, memory=None):
        loaded.append((int((runs[:, 1] - runs[:, 0]).sum()), len(chosen)))
        return examples.load(runs, chosen)

    watched = type(examples)(100, load, {}, "")
    fed(watched, EpochPlan(100, 3, 7), block=20, run=5)
    assert loaded == [(20, 20)] * 5


def test_a_replica_loads_what_it_is_fed_and_nothing_else():
    """Rows of other replicas are not its work; an idle one, at the end of the epoch, takes any example."""
    loaded = []
    examples, plan = numbered(99), EpochPlan(99, 3, 7)

    def load(runs, chosen, memory=None):
        loaded.append(np.concatenate([np.arange(*run) for run in runs])[chosen].tolist())
        return examples.load(runs, chosen)

    watched = type(examples)(99, load, {}, "")
    order = epoch_order(99, seed=3, epoch=0, block=20, run=5)
    own = [order.examples(plan.positions(step, 1)).tolist() for step in range(plan.num_steps)]
    labels = [batch.labels.tolist() for (batch,) in epoch_batches(watched, plan, order, replicas=range(1, 2))]
    assert labels == own
    assert list(itertools.chain(*loaded)) == list(itertools.chain(*own))
    loaded.clear()
    ((idle,),) = epoch_batches(watched, EpochPlan(99, 2, 99), order, replicas=range(1, 2))
    assert idle.weights.tolist() == [0]
    assert loaded == [[order.examples(range(1))[0]]]


@pytest.mark.parametrize("first_position", [0, 13])
@pytest.mark.parametrize("batch_size", [1, 7, 16])
def test_all_replicas_read_a_block_in_the_same_step(batch_size, first_position):
    """A block takes long to read, and all wait for who does: one that needs it a step later must not do so then."""
    num_replicas, block = 3, 200
    plan = EpochPlan(1990, num_replicas, batch_size, first_position)
    steps_of = []
    for replica in range(num_replicas):
        steps, walked, examples = [], [], numbered(1990)

        def load(runs, chosen, memory=None, examples=examples, steps=steps, walked=walked):
            if len(runs) > 1:  # else what an idle replica is fed
                steps.append(len(walked))
            return examples.load(runs, chosen)

        order = epoch_order(1990, seed=3, epoch=0, block=block, run=5)
        watched = type(examples)(1990, load, {}, "")
        for batches in epoch_batches(watched, plan, order, replicas=range(replica, replica + 1)):
            walked.append(batches)
        steps_of.append(steps)
    # A block is read with the step that reaches into it.
    reached = [max(0, start - first_position) // (num_replicas * batch_size) for start in range(0, 1990, block)]
    assert steps_of == [reached] * num_replicas


@pytest.mark.parametrize("kind", ["ngram", "sequence", "packed"])
def test_batches_stay_as_they_are_when_the_next_block_is_read(kind):
    """Blocks take turns in the same memory; what was made of one must not lie there."""
    matrix = scipy.sparse.random(90, 30, density=0.3, format="csr", dtype=np.float32, rng=1)
    values = matrix.data if kind == "ngram" else None
    rows = Rows(matrix.indptr.astype(np.int64), matrix.indices + 1, values, np.arange(90, dtype=np.int32))
    layout = {"kind": "ngram" if kind == "ngram" else "sequence", "pad_multiple": 2 if kind == "packed" else None}
    examples = rows_examples(rows, num_features=31, length=30, **layout)
    for batch in itertools.chain(*fed(examples, EpochPlan(90, 2, 4), block=20, run=5)):
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


def test_prefetching_keeps_the_order_and_ends():
    with prefetched(iter(range(50)), depth=3) as items:
        assert list(items) == list(range(50))


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name == "distrain-prefetch"]


def test_prefetching_hands_on_an_error_in_its_place():
    def items():
        yield 1
        yield 2
        raise OSError("disk is gone")

    seen = []
    with pytest.raises(OSError, match="disk is gone"), prefetched(items()) as source:
        seen.extend(source)
    assert seen == [1, 2]
    assert prefetch_threads() == []


def test_closing_early_ends_the_thread_and_makes_no_more():
    made = []

    def items():
        for number in itertools.count():
            made.append(number)
            yield number

    with prefetched(items(), depth=2) as source:
        assert next(source) == 0
        assert len(prefetch_threads()) == 1
    assert prefetch_threads() == []
    count = len(made)
    assert count <= 5  # what was taken, waits, and was under way
    assert len(made) == count


@pytest.mark.parametrize(("size", "ahead"), [(PREFETCH_BYTES, 4), (PREFETCH_BYTES // 16, 16), (1, 64)])
def test_more_small_batches_are_made_ahead(size, ahead):
    made = threading.Semaphore(0)

    def items():
        while True:
            made.release()
            yield [{"x": np.zeros(size, np.uint8)}]

    with prefetched(items()) as source:
        next(source)
        for _ in range(ahead + 1):  # what was taken, and what waits
            assert made.acquire(timeout=10)
        made.acquire(timeout=0.3)  # one may be under way
        assert not made.acquire(timeout=0.3)


def guide_batches(x, y, batch_size):
    """The generator of the text classification guide, for one process."""
    num_batches = -(-len(y) // batch_size)
    for number in range(num_batches):
        start, end = number * batch_size, min((number + 1) * batch_size, len(y))
        yield x[start:end], y[start:end]


def same(batches, expected):
    return all(
        np.array_equal(x, xe) and np.array_equal(y, ye)
        for (x, y), (xe, ye) in itertools.zip_longest(batches, expected, fillvalue=(None, None))
    )


X = np.random.default_rng(0).normal(size=(23, 4)).astype(np.float32)
Y = np.arange(23)


def test_one_rank_yields_the_batches_of_the_guide_over_and_over():
    generator = BatchGenerator(X, Y, 4, 5)
    assert len(generator) == generator.steps_per_epoch == 5
    expected = list(guide_batches(X, Y, 5))
    assert same(itertools.islice(generator, 10), expected * 2)
    assert same(generator.epoch(), expected)


@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 20), st.booleans())
@settings(max_examples=40, deadline=None)
def test_ranks_share_the_batches_of_the_guide(n, size, batch_size, shuffle):
    x, y = np.arange(2.0 * n).reshape(n, 2), np.arange(n)
    ranks = [BatchGenerator(x, y, 2, batch_size, rank, size, shuffle=shuffle, seed=1) for rank in range(size)]
    assert len({len(generator) for generator in ranks}) == 1  # nobody waits for ever in a collective
    batches = [list(generator.epoch(2)) for generator in ranks]
    in_order = [batch for step in zip(*batches, strict=True) for batch in step]
    chosen = np.concatenate([labels for _, labels in in_order]).tolist()
    expected = epoch_order(n, seed=1, epoch=2, shuffle=shuffle).examples(range(n)).tolist()
    assert chosen == expected
    assert sorted(chosen) == list(range(n))
    assert shuffle or same([batch for batch in in_order if len(batch[1])], list(guide_batches(x, y, batch_size)))
    assert all(np.array_equal(values, x[labels]) for values, labels in in_order)
    assert all(values.shape[1] == 2 for values, _ in in_order)


def test_shuffled_epochs_differ():
    generator = BatchGenerator(X, Y, 4, 23, shuffle=True)
    (_, first), (_, second) = itertools.islice(generator, 2)
    assert first.tolist() != second.tolist()
    assert sorted(first) == sorted(second)


def test_memory_maps_and_sparse_matrices_give_the_same_batches(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    expected = list(BatchGenerator(X, Y, 4, 6, 1, 2).epoch())
    assert same(BatchGenerator(mapped, Y, 4, 6, 1, 2).epoch(), expected)
    for kind in (scipy.sparse.csr_matrix, scipy.sparse.csr_array, scipy.sparse.coo_array):
        assert same(BatchGenerator(kind(X), Y, 4, 6, 1, 2).epoch(), expected)
    assert same(BatchGenerator(X, Y.tolist(), 4, 6, 1, 2).epoch(), expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((X, Y, 4, 0), "batch_size is 0"),
        ((X, Y, 4, 5, 2, 2), "rank is 2"),
        ((X, Y, 4, 5, -1, 2), "rank is -1"),
        ((X, Y, 5, 5), "num_features is 5"),
        ((X[:, 0], Y, 4, 5), "shape"),
        ((X, Y[:-1], 4, 5), "23 rows"),
        ((X[:0], Y[:0], 4, 5), "empty"),
        ((X.astype(object), Y, 4, 5), "object"),
    ],
)
def test_a_generator_says_what_does_not_fit(arguments, words):
    with pytest.raises(ConfigurationError, match=words):
        BatchGenerator(*arguments)


@pytest.mark.parametrize(
    ("n", "batch_size", "size", "steps"), [(10, 3, 2, 2), (10, 3, 1, 4), (1, 8, 8, 1), (0, 3, 2, 0)]
)
def test_validation_steps(n, batch_size, size, steps):
    assert validation_steps(n, batch_size, size) == distrain.steps_per_epoch(n, batch_size, size) == steps
