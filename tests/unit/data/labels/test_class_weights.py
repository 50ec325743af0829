"""Class weights: each example weighs what Keras and scikit-learn give its class."""

from __future__ import annotations

import tracemalloc

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_datasets import ragged, write_dataset

from distrain.data.labels.class_weights import balanced_weights, class_counts, class_weighted
from distrain.data.labels.labels import labels_between
from distrain.data.positional import positional_examples
from distrain.data.sources import array_examples, part_examples, rows_examples
from distrain.errors import ConfigurationError

FORMS = {
    "int": lambda y, k: y,
    "uint8": lambda y, k: y.astype(np.uint8),
    "float": lambda y, k: y + np.float32(0.25),
    "column": lambda y, k: y[:, None],
    "one-hot": lambda y, k: np.eye(k)[y],
    "bool": lambda y, k: y > 0,
}


def weights_of(examples, order):
    return examples.load(np.array([[0, examples.num_examples]]), order)(0, len(order))[2]


def keras_weights(labels, class_weight):
    """What `fit` of Keras hands to a model that keeps the weights that it receives."""
    received = []

    class Keeping(keras.Model):
        def train_step(self, data):
            received.append(data[2].numpy())
            return {"loss": keras.ops.zeros(())}

    model = Keeping()
    model.compile(run_eagerly=True)
    model.fit(np.zeros((len(labels), 1)), labels, class_weight=class_weight, shuffle=False, verbose=0)
    return np.concatenate(received)


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_those_that_keras_hands_to_a_model(form):
    """Also for a class without a weight, which weighs 1, and for a weight 0."""
    labels = FORMS[form](np.arange(11) * 7 % 4, 4)
    class_weight = {0: 0.1, 1: 0.0, 3: 7}
    weighted = class_weighted(array_examples(np.zeros((11, 1)), labels), class_weight)
    order = np.array([10, 3, 4, 0, 1, 2, 9])
    np.testing.assert_array_equal(
        weights_of(weighted, order).astype(np.float32), keras_weights(labels, class_weight)[order]
    )


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_balanced_classes_have_the_same_total(labels):
    labels = np.array(labels)
    examples = array_examples(np.zeros((len(labels), 1)), labels)
    counts = class_counts(examples)
    assert list(counts) == sorted(set(labels.tolist()))
    weights = weights_of(class_weighted(examples, balanced_weights(counts)), np.arange(len(labels)))
    for label in counts:
        assert weights[labels == label].sum() == pytest.approx(len(labels) / len(counts))


def test_scikit_learns_figures():
    """`compute_class_weight("balanced", classes=[0, 1, 2], y=[0, 0, 0, 1, 2, 2])` of scikit-learn."""
    assert balanced_weights({0: 3, 1: 1, 2: 2, 3: 0}) == pytest.approx({0: 2 / 3, 1: 2.0, 2: 1.0})


def test_prepared_rows_are_counted_and_weighed(tmp_path, monkeypatch):
    monkeypatch.setattr("distrain.data.labels.class_weights.COUNTED_ROWS", 3)
    rows = ragged([2, 0, 3, 1, 4])
    dataset = write_dataset(tmp_path / "data", [rows, rows], rows_per_shard=4)
    expected = {0: 4, 1: 4, 2: 2}
    examples = part_examples(dataset.parts["train"], length=1)
    assert class_counts(examples) == expected
    assert class_counts(rows_examples(rows, kind="ngram", num_features=50, length=1)) == {0: 2, 1: 2, 2: 1}
    weighted = class_weighted(examples, {1: 5.0})
    assert weights_of(weighted, np.array([4, 3, 9])).tolist() == [5.0, 1.0, 5.0]


def test_labels_of_large_examples_are_counted_in_little_memory():
    class Pictures:
        def __len__(self):
            return 3000

        def __getitem__(self, number):
            return np.zeros((128, 128), np.float32), {"kind": number % 3}

    examples = positional_examples(Pictures())
    tracemalloc.start()
    labels = labels_between(examples, 5, 3000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert labels["kind"].tolist() == [number % 3 for number in range(5, 3000)]
    assert peak < 60 * 2**20  # all pictures take 188 MiB


def test_other_weights_are_other_data():
    examples = array_examples(np.zeros((3, 1)), [0, 1, 1])
    digests = {class_weighted(examples, {1: weight}).digest for weight in (2.0, 3.0)}
    assert len(digests | {examples.digest}) == 3


X = np.zeros((3, 1))


@pytest.mark.parametrize(
    ("arguments", "weights", "words"),
    [
        ((X, [0, 1, 1], [1, 2, 3]), {0: 1}, "class_weight and sample weights.*multiply"),
        ((X, {"a": np.ones(3), "b": np.ones(3)}), {0: 1}, "several labels"),
        ((X, [np.ones(3)]), {0: 1}, "several labels"),
        ((X,), {0: 1}, "no labels"),
        ((X, np.ones((3, 2, 2))), {0: 1}, "3 axes"),
        ((X, [0, 1, 1]), {"cat": 1}, "'cat'"),
        ((X, [0, 1, 1]), {0: -1}, "finite weights >= 0"),
        ((X, [0, 1, 1]), {0: np.nan}, "finite weights >= 0"),
        ((X, [0, 1, 1]), {0: "1"}, "finite weights >= 0"),
        ((X, [0, 1, 1]), [1, 2], "give a dict"),
    ],
)
def test_what_keras_refuses_is_refused(arguments, weights, words):
    with pytest.raises(ConfigurationError, match=words):
        class_weighted(array_examples(*arguments), weights)
