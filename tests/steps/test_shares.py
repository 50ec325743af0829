"""A loss that compares examples is found on data of any order and with any number of classes; no shipped one does."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from distrain.config import TrainConfig
from distrain.data.batches import sample_batch
from distrain.data.sources import array_examples
from distrain.errors import ConfigurationError
from distrain.models.build import text_model
from distrain.models.heads import head_of
from distrain.training.model_checks.shares import check_shares, probe_of
from distrain.training.steps.task import make_task

OPS = keras.ops
ROWS = 4000  # each class of sorted data fills far more than the first batch
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype("float32")


def triplets(y_true, y_pred):
    """Return the batch-hard triplet loss, which is 0 without two examples of one class or without two classes."""
    classes = OPS.reshape(y_true, (-1,))
    distances = OPS.sum(OPS.square(y_pred[:, None] - y_pred[None]), -1)
    is_same = OPS.cast(classes[:, None] == classes[None], distances.dtype)
    others = OPS.cast(classes[:, None] != classes[None], distances.dtype)
    has_both = OPS.cast((OPS.sum(is_same, 1) > 1) & (OPS.sum(others, 1) > 0), distances.dtype)
    farthest, nearest = OPS.max(distances * is_same, 1), OPS.min(distances + 1e3 * is_same, 1)
    return has_both * OPS.relu(farthest - nearest + 0.5)


def mean_over_positives(y_true, y_pred):
    """Return the mean error of the examples of class 1, which is 0 without such examples."""
    is_positive = OPS.cast(y_true == 1, y_pred.dtype)
    return OPS.sum(is_positive * OPS.square(y_true - y_pred)) / OPS.maximum(OPS.sum(is_positive), 1.0)


SHIPPED = {
    "two classes": (head_of("classification"), 2, np.arange(16) % 2),
    "three classes": (head_of("classification"), 3, np.arange(16) % 3),
    "labels": (head_of("multilabel"), 3, np.eye(3, dtype="float32")[np.arange(16) % 3]),
    "numbers": (head_of("regression", 7.5, 4.6), 0, np.arange(16, dtype="float32")),
}


@pytest.mark.parametrize(("head", "num_classes", "labels"), SHIPPED.values(), ids=SHIPPED.keys())
def test_the_shipped_losses_and_metrics_divide(head, num_classes, labels):
    """So runs of the shipped models leave the check out."""
    examples = array_examples(csr_matrix(X[:16]), labels)
    settings = {"num_features": 4, "num_classes": num_classes, "config": TrainConfig(Path(), Path()), "head": head}
    build = partial(text_model, "ngram", **settings)
    sample = sample_batch(examples)
    task = make_task(build, sample, scope=nullcontext(), num_columns=examples.num_columns, jit_compile=False)
    assert check_shares(task, probe_of(examples, seed=0, shuffle=True)) is task


def checked(loss, labels, seed):
    def build():
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", loss)
        return model

    examples = array_examples(X, labels.astype("float32").reshape(-1, 1))
    task = make_task(build, sample_batch(examples), scope=nullcontext(), num_columns={})
    return check_shares(task, probe_of(examples, seed=seed, shuffle=True))


@pytest.mark.parametrize("seed", range(3))  # one seed of 32 chooses labels of one half alone
@pytest.mark.parametrize(
    ("loss", "labels"),
    [
        pytest.param(triplets, np.arange(ROWS) * 10 // ROWS, id="triplets of sorted classes"),
        pytest.param(triplets, np.arange(ROWS), id="triplets of a class per example"),
        pytest.param(mean_over_positives, np.arange(ROWS) >= ROWS // 2, id="mean over sorted positives"),
    ],
)
def test_a_loss_that_compares_examples_is_refused(loss, labels, seed):
    with pytest.raises(ConfigurationError, match="does not divide among replicas"):
        checked(loss, labels, seed)


def test_a_loss_of_each_example_passes():
    assert checked("mse", np.arange(ROWS) * 10 // ROWS, 0).model.built
