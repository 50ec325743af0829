"""The classes of labels are found for each sparse loss, by the name of its label; wrong labels end in a DataError."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import distrain
from distrain.data.batches import sample_batch
from distrain.data.labels.label_range import LabelRange
from distrain.data.sources import array_examples
from distrain.distribution.single import SingleDevice
from distrain.errors import DataError
from distrain.training.model_checks.label_classes import label_ranges
from distrain.training.steps.task import make_task

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras, in its logs

X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
Y = np.arange(40) % 3
sparse = keras.losses.SparseCategoricalCrossentropy


class Shifted(sparse):
    """A loss whose labels count from 1."""

    def call(self, y_true, y_pred):
        return super().call(y_true - 1, y_pred)


def ranges_of(model, labels, loss):
    model.compile("sgd", loss)
    examples = array_examples(X, labels)
    sample = sample_batch(examples)
    task = make_task(lambda: model, sample, scope=SingleDevice().scope(), num_columns={})
    return label_ranges(task, sample)


def one_output(units=3):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation="softmax")])


def compiled():
    model = one_output()
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def two_outputs(form):
    inputs = keras.Input((4,))
    topic, mood = keras.layers.Dense(3, name="topic")(inputs), keras.layers.Dense(5, name="mood")(inputs)
    return keras.Model(inputs, {"topic": topic, "mood": mood} if form is dict else [topic, mood])


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("sparse_categorical_crossentropy", {"": LabelRange(3)}),
        (keras.losses.sparse_categorical_crossentropy, {"": LabelRange(3)}),
        (sparse(ignore_class=-1), {"": LabelRange(3, frozenset({-1}))}),
        (sparse(ignore_class=255, reduction="sum"), {"": LabelRange(3, frozenset({255}))}),
        (Shifted(), {}),
        (keras.losses.CategoricalCrossentropy(), {}),
    ],
)
def test_the_range_of_one_label(loss, expected):
    labels = {"Shifted": Y + 1, "CategoricalCrossentropy": np.eye(3)[Y]}.get(type(loss).__name__, Y)
    assert ranges_of(one_output(), labels, loss) == expected


def test_labels_of_several_outputs_by_name_and_by_position():
    both = {"topic": Y, "mood": Y}
    losses = {"topic": sparse(from_logits=True), "mood": sparse(from_logits=True)}
    by_name = {"topic": LabelRange(3), "mood": LabelRange(5)}
    assert ranges_of(two_outputs(dict), both, losses) == by_name
    assert ranges_of(two_outputs(list), both, losses) == by_name
    labels = [Y, np.eye(5)[Y]]
    assert ranges_of(two_outputs(list), labels, [losses["topic"], "mse"]) == {"0": LabelRange(3)}


@pytest.mark.parametrize("row", [0, 3, 39])
@pytest.mark.parametrize("label", [3, -1])
def test_a_wrong_label_anywhere_is_told_in_one_sentence(row, label):
    """In the sample that builds the model, in the examples that check shares, and in the middle of an epoch."""
    labels = Y.copy()
    labels[row] = label

    with pytest.raises(DataError) as caught:
        distrain.fit(compiled, (X, labels), epochs=1, batch_size=8, devices="cpu:1", jit_compile=False)
    message = str(caught.value)
    assert f"example {row} has {label}, but the model has 3 outputs" in message
    assert "\n" not in message


def test_a_wrong_label_of_the_validation_data():
    wrong = np.where(np.arange(40) == 7, 9, Y)
    with pytest.raises(DataError, match="example 7 has 9, but the model has 3 outputs"):
        distrain.fit(compiled, (X, Y), (X, wrong), epochs=1, batch_size=8, devices="cpu:1", jit_compile=False)


def test_labels_that_a_loss_of_the_user_counts_from_1_train_as_labels_from_0():
    settings = {"epochs": 1, "global_batch_size": 8, "devices": "cpu:1", "optimizer": "sgd", "jit_compile": False}
    from_0, from_1 = (
        distrain.fit(one_output, (X, labels), loss=loss, **settings).model.get_weights()
        for labels, loss in ((Y, sparse()), (Y + 1, Shifted()))
    )
    for own, wanted in zip(from_1, from_0, strict=True):
        np.testing.assert_array_equal(own, wanted)
