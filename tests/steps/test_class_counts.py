"""Counts by class against scikit-learn, for each kind of output, with ragged steps and idle replicas."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from distrain.data.batches import epoch_batches, sample_batch
from distrain.data.plan import EpochPlan
from distrain.data.shuffle import epoch_order
from distrain.data.sources import array_examples
from distrain.distribution.single import SingleDevice
from distrain.training.figures.class_counts import choose_counting, make_count_step
from distrain.training.figures.class_figures import MAX_CONFUSION_CLASSES, class_figures, label_figures
from distrain.training.steps.task import batch_specs, make_task


def task_of(examples, outputs, activation=None, loss="sparse_categorical_crossentropy"):
    def build():
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(outputs, activation)])
        model.compile("sgd", loss)
        return model

    return make_task(build, sample_batch(examples), scope=SingleDevice().scope(), num_columns={})


def data_of(num_classes, num_rows=61):
    rng = np.random.default_rng(num_classes)
    return rng.normal(size=(num_rows, 4)).astype(np.float32), rng.integers(0, num_classes, num_rows).astype(np.int32)


def counts_of(task, examples, num_classes, divisions):
    """For each number of replicas and batch size, the sum of all batches' counts, also of idle replicas' batches."""
    sample = sample_batch(examples)
    step = make_count_step(task, SingleDevice(), batch_specs(sample), choose_counting(task, sample, num_classes))
    order = epoch_order(examples.num_examples, seed=0, epoch=0, shuffle=False)
    for num_replicas, batch_size in divisions:
        plan = EpochPlan(examples.num_examples, num_replicas, batch_size)
        steps = epoch_batches(examples, plan, order, replicas=range(num_replicas))
        yield sum(step([batch]).sums[0].astype(np.float64) for batches in steps for batch in batches)


@pytest.mark.parametrize(
    ("num_classes", "outputs", "activation", "loss"),
    [
        (3, 3, "softmax", "sparse_categorical_crossentropy"),
        (2, 2, "softmax", "sparse_categorical_crossentropy"),
        (2, 1, "sigmoid", "binary_crossentropy"),
        (2, 1, None, keras.losses.BinaryCrossentropy(from_logits=True)),
        (MAX_CONFUSION_CLASSES + 1, MAX_CONFUSION_CLASSES + 1, None, "sparse_categorical_crossentropy"),
    ],
)
def test_each_example_counts_once(num_classes, outputs, activation, loss):
    x, y = data_of(num_classes)
    examples = array_examples(x, y)
    task = task_of(examples, outputs, activation, loss)
    assert choose_counting(task, sample_batch(examples), num_classes)
    found = task.model.predict(x, verbose=0)
    middle = 0.5 if activation else 0.0
    predicted = (found[:, 0] > middle).astype(int) if outputs == 1 else found.argmax(axis=1)
    expected = confusion_matrix(y, predicted, labels=range(num_classes))
    if num_classes > MAX_CONFUSION_CLASSES:
        expected = np.stack([np.diagonal(expected), expected.sum(0), expected.sum(1)])
    names = [str(number) for number in range(num_classes)]
    divisions = [(1, 61), (1, 8), (3, 15), (4, 20)]
    for division, counts in zip(divisions, counts_of(task, examples, num_classes, divisions), strict=True):
        np.testing.assert_array_equal(counts, expected, err_msg=f"replicas and batch size {division}")
        assert sum(row["support"] for row in class_figures(counts, names)["classes"].values()) == len(x)


def test_models_that_predict_no_class():
    x, y = data_of(3)
    examples = array_examples(x, y)
    sample = sample_batch(examples)
    assert not choose_counting(task_of(examples, 4), sample, 3)
    assert not choose_counting(task_of(examples, 3), sample, 0)
    regression = array_examples(x, y.astype(np.float32))
    assert not choose_counting(task_of(regression, 1, loss="mse"), sample_batch(regression), 2)
    one_hot = array_examples(x, tf.one_hot(y, 3).numpy())
    task = task_of(one_hot, 3, "softmax", "categorical_crossentropy")
    assert not choose_counting(task, sample_batch(one_hot), 3)


@pytest.mark.parametrize(("activation", "num_replicas", "batch_size"), [("sigmoid", 1, 61), (None, 3, 8)])
def test_each_label_counts_once(activation, num_replicas, batch_size):
    x, _ = data_of(4)
    y = (np.random.default_rng(1).random((61, 4)) < [0.5, 0.2, 0.9, 0.0]).astype(np.uint8)
    examples = array_examples(x, y)
    loss = keras.losses.BinaryCrossentropy(from_logits=activation is None)
    task = task_of(examples, 4, activation, loss)
    (counts,) = counts_of(task, examples, 4, [(num_replicas, batch_size)])
    predicted = task.model.predict(x, verbose=0) > (0.5 if activation else 0.0)
    found = label_figures(counts, "abcd")
    expected = precision_recall_fscore_support(y, predicted, zero_division=0)
    for name, figures in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [row[name] for row in found["classes"].values()] == pytest.approx(figures)
    macro = [found[f"macro_{name}"] for name in ("precision", "recall", "f1")]
    assert macro == pytest.approx([values.mean() for values in expected[:3]])
    micro = precision_recall_fscore_support(y, predicted, average="micro", zero_division=0)
    assert [found[f"micro_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(micro[:3])
