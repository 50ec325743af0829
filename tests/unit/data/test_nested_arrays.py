"""Nests of features, labels and weights: each example is fed once, with its own values, at any number of replicas."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from distrain.batch import SparseRows
from distrain.data.batches import epoch_batches, idle_batch, sample_batch
from distrain.data.nests import leaves, map_nest
from distrain.data.plan import EpochPlan
from distrain.data.shuffle import epoch_order
from distrain.data.sources import array_examples
from distrain.errors import ConfigurationError

SHAPES = [(), (1,), (3,), (2, 2)]
DTYPES = [np.float32, np.float64, np.int64, np.uint8, bool]
LEAVES = st.tuples(st.sampled_from(SHAPES), st.sampled_from(DTYPES), st.integers(0, 99))
NESTS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda items: ("list", items))
        | st.lists(inner, min_size=1, max_size=3).map(lambda items: ("tuple", items))
        | st.dictionaries(st.sampled_from("abc"), inner, min_size=1).map(lambda items: ("dict", items))
    ),
    max_leaves=4,
)


def nest_of(drawn, n):
    """The drawn structure with arrays of n rows, of which no two are equal in all columns of the first input."""
    kind, *rest = drawn
    if kind == "dict":
        return {key: nest_of(value, n) for key, value in rest[0].items()}
    if kind in ("list", "tuple"):
        return {"list": list, "tuple": tuple}[kind](nest_of(value, n) for value in rest[0])
    dtype, seed = rest
    return np.random.default_rng(seed).integers(0, 250, (n, *kind)).astype(dtype)


def same(nest, wanted):
    """Whether two nests have the same structure, dtypes and values."""
    if isinstance(wanted, dict):
        return list(nest) == list(wanted) and all(same(nest[key], wanted[key]) for key in wanted)
    if isinstance(wanted, (list, tuple)):
        return type(nest) is type(wanted) and all(map(same, nest, wanted)) and len(nest) == len(wanted)
    return nest.dtype == wanted.dtype and np.array_equal(nest, wanted)


@given(NESTS, NESTS | st.none(), st.sampled_from(["none", "one", "each", "some"]), st.integers(1, 30), st.data())
@settings(max_examples=80, deadline=None)
def test_each_example_is_fed_once_with_its_own_values(features, labels, weighted, n, data):
    x = [np.arange(n), nest_of(features, n)]  # the first input is the number of the example
    y = None if labels is None else nest_of(labels, n)
    weights = {"none": None, "one": np.linspace(0, 1, n)}.get(weighted)
    wanted_weights = () if weights is None else weights
    if weighted in ("each", "some") and y is not None:
        keep = [weighted == "each" or number % 2 == 0 for number in range(len(leaves(y)))]
        kept = iter(keep)
        weights = map_nest(lambda value, name: np.linspace(1, 2, n) if next(kept) else None, y)
        wanted_weights = map_nest(lambda value, name: () if value is None else value, weights)
        weights = None if not any(keep) else weights
    elif weighted == "one" and y is not None:
        wanted_weights = map_nest(lambda value, name: weights, y)
    num_replicas, batch_size = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 10))
    plan = EpochPlan(n, num_replicas, batch_size)
    order = epoch_order(
        n, seed=5, epoch=1, window_size=data.draw(st.integers(2, 20)), span_size=data.draw(st.integers(1, 8))
    )
    examples = array_examples(x, y, weights)
    seen = []
    for step, batches in enumerate(epoch_batches(examples, plan, order, replicas=range(num_replicas), epoch=1)):
        assert {int(batch.global_rows) for batch in batches} == {sum(int(batch.num_rows) for batch in batches)}
        for replica, batch in enumerate(batches):
            assert batch.num_rows == len(plan.positions(step, replica))
            rows = batch.features[0]
            assert len(rows) == max(1, batch.num_rows)
            assert same(batch.features, map_nest(lambda value, name, rows=rows: value[rows], x))
            assert same(batch.labels, map_nest(lambda value, name, rows=rows: value[rows], () if y is None else y))
            assert same(batch.weights, map_nest(lambda value, name, rows=rows: value[rows], wanted_weights))
            seen += rows[: batch.num_rows].tolist()
    assert seen == order.examples(range(n)).tolist()
    assert sorted(seen) == list(range(n))


def test_sparse_inputs_of_a_list_are_named_by_their_position():
    matrix = scipy.sparse.random(20, 7, density=0.3, format="csr", dtype=np.float32, rng=1)
    examples = array_examples((np.arange(20.0), {"words": matrix}), np.arange(20))
    assert dict(examples.num_columns) == {"1/words": 7}
    order = epoch_order(20, seed=0, epoch=0, window_size=8, span_size=2)
    for batches in epoch_batches(examples, EpochPlan(20, 2, 3), order, replicas=range(2)):
        for batch in batches:
            rows = batch.features[1]["words"]
            assert isinstance(rows, SparseRows)
            dense = scipy.sparse.coo_array(
                (rows.values, (rows.row_ids, rows.columns)), (len(batch.labels), 7)
            ).toarray()
            assert np.array_equal(dense, matrix[batch.labels].toarray())


@pytest.mark.parametrize("numbers", [[0, 1, 1], (0, 1, 1), [np.int64(0), 1, True], [[1, 0], [0, 1], [1, 1]]])
def test_a_list_of_numbers_is_an_array(numbers):
    assert np.array_equal(sample_batch(array_examples(np.zeros(3), numbers)).labels, np.asarray(numbers)[:2])


def test_a_series_is_a_column_as_in_keras():
    class Series:
        iloc = None
        shape = (3,)

        def __array__(self, dtype=None, copy=None):
            return np.arange(3.0)

    batch = sample_batch(array_examples([Series()], Series()))
    assert batch.features[0].tolist() == batch.labels.tolist() == [[0.0], [1.0]]


def test_an_idle_batch_keeps_the_weights_of_its_examples():
    sample = sample_batch(array_examples(np.zeros(3), {"a": np.ones(3), "b": np.ones(3)}, np.full(3, 0.5)))
    idle = idle_batch(sample, 2)
    assert (sample.num_rows, idle.num_rows, idle.step_flags[-1]) == (2, 0, 3)
    assert {name: weights.tolist() for name, weights in idle.weights.items()} == {"a": [0.5, 0.5], "b": [0.5, 0.5]}


Y = {"a": np.ones(3), "b": np.ones((3, 2))}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([np.ones(3), np.ones(2)], np.ones(3)), r"Input '1' has 2 rows, but there are 3 labels"),
        (({"a": [np.ones(3), np.ones(2)]}, np.ones(3)), r"Input 'a/1' has 2 rows"),
        (([np.ones(3), np.ones(2)],), r"Input '1' has 2 rows, but there are 3 rows of the first input"),
        ((np.ones(3), {"a": np.ones(3), "b": np.ones(2)}), r"Label 'b' has 2 rows, but label 'a' has 3"),
        ((np.ones(3), Y, {"a": np.ones(3), "b": np.ones(2)}), r"The weights 'b' have shape \(2,\)"),
        (
            (np.ones(3), Y, {"a": np.ones(3), "c": np.ones(3)}),
            r"weights are a dict of 'a', 'c', but the labels are a dict",
        ),
        ((np.ones(3), Y, [np.ones(3), np.ones(3)]), r"weights are a list of '0', '1', but the labels are a dict"),
        ((np.ones(3), np.ones(3), [np.ones(3)]), r"weights are a list of '0', but the labels are one array"),
        ((np.ones(3), Y, np.ones((3, 2))), r"weights have shape \(3, 2\), but there are several labels"),
        ((np.ones(3), Y, {"a": None, "b": np.array([1, -1, 1])}), r"A weight of 'b' is negative"),
        ((np.ones(3), np.ones(3), np.array([[1], [np.inf], [1]])), r"A weight is negative or not finite"),
        ((np.ones(3), np.ones(3), np.array(["1"] * 3)), r"The weights are str of shape \(3,\)"),
        ((np.ones(3), np.array(list("abc"))), r"The labels are str of shape \(3,\); give numbers or booleans"),
        ((np.ones(3), list("abc")), r"The labels are str"),
        ((np.ones(3), {"a": np.ones(3), "b": np.array([b"a"] * 3)}), r"Label 'b' is bytes"),
        ((np.ones(3), np.array([0, 1, None])), r"The labels are object"),
        ((np.ones(3), np.ones(3, np.complex64)), r"The labels are complex64"),
        ((np.ones(3), np.zeros(3, "datetime64[s]")), r"The labels are datetime64"),
        ((np.ones(3), np.zeros(3, [("a", int)])), r"The labels are void"),
        ((np.ones(3), scipy.sparse.eye(3)), r"The labels are a sparse matrix; give a dense array"),
        ((np.ones(3), [[1], [1, 2], [3]]), r"A list is not an array of numbers"),
        ((None,), r"The features are None"),
        (([],), r"empty"),
        ((np.ones((0, 2)),), r"The features are empty"),
        (({"a": {}},), r"give at least one input"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(arguments, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        array_examples(*arguments)
    assert "\n" not in str(caught.value)
