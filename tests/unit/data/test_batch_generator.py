"""The public generator against the generator of the text classification guide."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import distrain
from distrain.data.batch_generator import BatchGenerator, validation_steps
from distrain.data.shuffle import epoch_order
from distrain.errors import ConfigurationError


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


def test_one_rank_repeats_the_batches_of_the_guide():
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
    assert len({len(generator) for generator in ranks}) == 1  # no rank waits forever in a collective
    batches = [list(generator.epoch(2)) for generator in ranks]
    in_order = [batch for step in zip(*batches, strict=True) for batch in step]
    examples = np.concatenate([labels for _, labels in in_order]).tolist()
    expected = epoch_order(n, seed=1, epoch=2, shuffle=shuffle).examples(range(n)).tolist()
    assert examples == expected
    assert sorted(examples) == list(range(n))
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
def test_the_error_names_the_wrong_argument(arguments, words):
    with pytest.raises(ConfigurationError, match=words):
        BatchGenerator(*arguments)


@pytest.mark.parametrize(
    ("n", "batch_size", "size", "steps"), [(10, 3, 2, 2), (10, 3, 1, 4), (1, 8, 8, 1), (0, 3, 2, 0)]
)
def test_validation_steps(n, batch_size, size, steps):
    assert validation_steps(n, batch_size, size) == distrain.steps_per_epoch(n, batch_size, size) == steps
