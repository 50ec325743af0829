"""A data set of TensorFlow: batches are cut into examples, refused where they look like examples, or told."""

from __future__ import annotations

import numpy as np
import pytest

from distrain.data.by_position.element_stream import element_stream
from distrain.errors import ConfigurationError

tf = pytest.importorskip("tensorflow")

DATA = tf.data.Dataset.from_tensor_slices(([[1.0, 2.0]] * 6, [0] * 6))
FIXED = DATA.batch(3, drop_remainder=True)


def count(dataset):
    return sum(number for number, _ in element_stream(dataset, "train").blocks())


@pytest.mark.parametrize("dataset", [DATA, DATA.batch(4), DATA.batch(4).prefetch(1), FIXED.unbatch(), DATA.cache()])
def test_each_example_counts_once(dataset, caplog):
    assert count(dataset) == 6
    assert not caplog.messages


@pytest.mark.parametrize(
    "dataset",
    [
        FIXED,
        FIXED.prefetch(2).with_options(tf.data.Options()),
        FIXED.cache().shuffle(2).repeat(1),
        DATA.batch(3, drop_remainder=True, num_parallel_calls=2),
        DATA.map(lambda x, y: (x, y)).padded_batch(3, drop_remainder=True).take(1),
        DATA.map(lambda x, y: x).batch(3, drop_remainder=True),
    ],
)
def test_batches_of_one_size_are_refused_with_both_cures(dataset):
    with pytest.raises(ConfigurationError, match=r"train: .* batches of 3 by .*drop_remainder.*\.unbatch\(\).*\.map\("):
        count(dataset)


def test_batches_that_a_function_changed_are_told(caplog):
    assert count(FIXED.map(lambda x, y: (2 * x, y))) == 2
    (message,) = caplog.messages
    assert "each batch counts as one example" in message


@pytest.mark.parametrize(
    "dataset",
    [
        FIXED.map(lambda x, y: (tf.reduce_sum(x), tf.reduce_sum(y))),
        DATA.map(lambda x, y: (tf.stack([x, x]), tf.stack([y, y]))),
        DATA.batch(3, drop_remainder=True).map(lambda x, y: (x, y[0])),
        DATA.window(3, drop_remainder=True).flat_map(
            lambda x, y: tf.data.Dataset.zip((x.batch(3, True), y.batch(3, True)))
        ),
    ],
)
def test_examples_whose_arrays_happen_to_be_equally_long_are_examples(dataset, caplog):
    assert count(dataset) > 0
    assert not caplog.messages


@pytest.mark.parametrize(
    ("x", "y", "is_told"),
    [
        ((8, 3), (8,), True),
        ((8, 4, 4), (8,), True),
        ((3,), (), False),
        ((8, 3), (), False),
        ((8,), (8,), False),
        ((8, 8, 3), (8, 8), False),
        ((1, 3), (1,), False),
        ((8, 3), (3,), False),
    ],
)
def test_elements_of_a_generator_that_look_like_batches_are_told(x, y, is_told, caplog):
    stream = element_stream(((np.zeros(x), np.zeros(y)) for _ in range(3)), "train")
    stream.tell_batches()
    assert [f"all have {x[0]} rows" in message for message in caplog.messages] == [True] * is_told


def test_elements_without_labels_and_with_several_inputs_are_looked_at_as_well(caplog):
    for element in ({"a": np.zeros((8, 3)), "b": np.zeros((8, 2)), "y": np.zeros(8)}, (np.zeros((8, 3)),)):
        element_stream(iter([element] * 2), "train").tell_batches()
    assert len(caplog.messages) == 1
