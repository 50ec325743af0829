"""Parts of a source of examples are rows of the source, read in place."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from distrain.data.batches import epoch_batches
from distrain.data.labels.labels import labels_between
from distrain.data.plan import EpochPlan
from distrain.data.shuffle import epoch_order
from distrain.data.sources import array_examples
from distrain.data.split import chosen_examples, split_examples

N = 30


@pytest.fixture
def arrays(tmp_path):
    rng = np.random.default_rng(0)
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=(N, 3))
    mapped[:] = rng.normal(size=(N, 3))
    features = {"dense": mapped, "sparse": scipy.sparse.random(N, 5, density=0.3, format="csr", random_state=0)}
    return features, [np.arange(N), np.arange(N) % 2], rng.random(N)


@pytest.mark.parametrize("count", [1, 17, 29])
def test_each_part_is_a_slice(arrays, count):
    features, labels, weights = arrays
    parts = split_examples(array_examples(*arrays), count)
    for part, rows in zip(parts, (slice(count), slice(count, None)), strict=True):
        size = len(weights[rows])
        assert part.num_examples == size
        picked = np.random.default_rng(1).permutation(size)
        read, read_labels, read_weights = part.load(np.array([[0, size]]), picked)(0, size)
        np.testing.assert_array_equal(read["dense"], features["dense"][rows][picked])
        dense = np.zeros((size, 5), np.float32)
        np.add.at(dense, (read["sparse"].row_ids, read["sparse"].columns), read["sparse"].values)
        np.testing.assert_allclose(dense, features["sparse"].toarray()[rows][picked], rtol=1e-6)
        np.testing.assert_array_equal(read_labels[0], labels[0][rows][picked])
        np.testing.assert_array_equal(read_weights[0], weights[rows][picked])
        np.testing.assert_array_equal(labels_between(part, 0, size)[1], labels[1][rows])
        entries = np.diff(features["sparse"].indptr)[rows]
        np.testing.assert_array_equal(part.row_sizes["sparse"](np.array([[0, size]])), entries)


def test_other_parts_have_other_digests(arrays):
    examples = array_examples(*arrays)
    digests = [part.digest for count in (10, 20) for part in split_examples(examples, count)]
    assert len({examples.digest, *digests}) == 5


def test_chosen_examples_are_rows_in_the_order_of_their_numbers(arrays):
    features, labels, weights = arrays
    numbers = np.array([17, 3, 29, 0, 4])
    chosen = chosen_examples(array_examples(*arrays), numbers)
    order = epoch_order(5, seed=0, epoch=0, shuffle=False)
    found = []
    for (batch,) in epoch_batches(chosen, EpochPlan(5, 1, 2), order, replicas=range(1)):
        read = batch.features["sparse"]
        dense = np.zeros((batch.num_rows, 5), np.float32)
        np.add.at(dense, (read.row_ids, read.columns), read.values)
        found.append((batch.features["dense"].copy(), dense, batch.labels[0].copy(), batch.weights[0].copy()))
    rows = [features["dense"], features["sparse"].toarray(), labels[0], weights.astype("float32")]
    for parts, right in zip(zip(*found, strict=True), rows, strict=True):
        np.testing.assert_allclose(np.concatenate(parts), right[numbers], rtol=1e-6)
