"""Metrics as sums: any division of the data gives Keras' result on all data."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from distrain.errors import ConfigurationError
from distrain.training.metrics import MetricSums

RANDOM = np.random.default_rng(0)
N = 101
BINARY = RANDOM.integers(0, 2, (N, 1)).astype(np.float32)
CLASSES = RANDOM.integers(0, 4, N).astype(np.int32)
ONE_HOT = np.eye(4, dtype=np.float32)[CLASSES]
SCORES = RANDOM.uniform(0, 1, (N, 1)).astype(np.float32)
PROBABILITIES = RANDOM.dirichlet(np.ones(4), N).astype(np.float32)
TARGETS = RANDOM.normal(size=(N, 3)).astype(np.float32)
OUTPUTS = RANDOM.normal(size=(N, 3)).astype(np.float32)
WEIGHTS = RANDOM.choice([0, 0.5, 1, 3], N).astype(np.float32)

CASES = {
    "binary accuracy": ("accuracy", keras.metrics.BinaryAccuracy, BINARY, SCORES),
    "categorical accuracy": ("accuracy", keras.metrics.CategoricalAccuracy, ONE_HOT, PROBABILITIES),
    "sparse accuracy": ("accuracy", keras.metrics.SparseCategoricalAccuracy, CLASSES, PROBABILITIES),
    "sparse accuracy of a column": ("acc", keras.metrics.SparseCategoricalAccuracy, CLASSES[:, None], PROBABILITIES),
    "AUC": (keras.metrics.AUC(), keras.metrics.AUC, BINARY, SCORES),
    "mean squared error": ("mse", keras.metrics.MeanSquaredError, TARGETS, OUTPUTS),
    "an object": (keras.metrics.MeanAbsoluteError(), keras.metrics.MeanAbsoluteError, TARGETS, OUTPUTS),
    "root": (keras.metrics.RootMeanSquaredError(), keras.metrics.RootMeanSquaredError, TARGETS, OUTPUTS),
    "F1": (
        keras.metrics.F1Score(average="macro"),
        lambda: keras.metrics.F1Score(average="macro"),
        ONE_HOT,
        PROBABILITIES,
    ),
    "recall": (keras.metrics.Recall(), keras.metrics.Recall, BINARY, SCORES),
}


def total(metrics, labels, outputs, weights, cuts):
    """Sums over the pieces between the cuts, added in float64 as the loop does."""
    sums = None
    for start, stop in zip([0, *cuts], [*cuts, len(labels)], strict=True):
        piece = [
            value.numpy().astype(np.float64)
            for value in metrics.of_batch(labels[start:stop], outputs[start:stop], weights[start:stop])
        ]
        sums = piece if sums is None else [a + b for a, b in zip(sums, piece, strict=True)]
    return sums


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cuts", [[], [1], [50], [7, 8, 60, 100]])
def test_any_cut_gives_the_figure_of_keras_on_all_data(case, cuts):
    given, witness, labels, outputs = CASES[case]
    expected = witness()
    expected.update_state(labels, outputs, sample_weight=WEIGHTS)
    metrics = MetricSums([given], labels[:2], outputs[:2])
    (figure,) = metrics.results(total(metrics, labels, outputs, WEIGHTS, cuts)).values()
    assert figure == pytest.approx(float(expected.result()), abs=1e-6)
    assert figure != 0  # a figure that is never touched would agree with itself


def test_several_metrics_keep_their_own_sums():
    metrics = MetricSums(["accuracy", keras.metrics.AUC(name="area"), "mse"], BINARY[:2], SCORES[:2])
    assert metrics.names == ["accuracy", "area", "mean_squared_error"]
    figures = metrics.results(total(metrics, BINARY, SCORES, np.ones(N, np.float32), [40]))
    assert list(figures) == metrics.names
    assert figures["accuracy"] == pytest.approx(np.mean((SCORES > 0.5) == BINARY), abs=1e-6)
    assert figures["mean_squared_error"] == pytest.approx(np.mean((SCORES - BINARY) ** 2), abs=1e-6)


def test_examples_of_weight_zero_count_nothing():
    metrics = MetricSums(["accuracy"], CLASSES[:2], PROBABILITIES[:2])
    with_padding = total(metrics, CLASSES, PROBABILITIES, (np.arange(N) < 60).astype(np.float32), [])
    without = total(metrics, CLASSES[:60], PROBABILITIES[:60], np.ones(60, np.float32), [])
    assert [value.tolist() for value in with_padding] == [value.tolist() for value in without]
    nothing = metrics.of_batch(CLASSES[:1], PROBABILITIES[:1], np.zeros(1, np.float32))
    assert [value.numpy().tolist() for value in nothing] == [0.0, 0.0]


def test_the_metric_objects_stay_untouched():
    accuracy = keras.metrics.BinaryAccuracy()
    metrics = MetricSums([accuracy], BINARY[:2], SCORES[:2])
    metrics.of_batch(BINARY, SCORES, WEIGHTS)
    assert [float(np.sum(variable.numpy())) for variable in accuracy.variables] == [0.0, 0.0]


def test_a_function_is_averaged():
    metrics = MetricSums([lambda labels, outputs: keras.ops.abs(labels - outputs)[:, 0]], TARGETS[:2], OUTPUTS[:2])
    (figure,) = metrics.results(total(metrics, TARGETS, OUTPUTS, WEIGHTS, [30])).values()
    assert figure == pytest.approx(np.average(np.abs(TARGETS - OUTPUTS)[:, 0], weights=WEIGHTS), abs=1e-6)


class Smoothed(keras.metrics.Metric):
    """The share of positive labels, with one of each kind seen beforehand: its state does not begin at zero."""

    def __init__(self):
        super().__init__(name="smoothed")
        self.positive = self.add_weight(shape=(), initializer="ones", name="positive")
        self.all = self.add_weight(shape=(), initializer=keras.initializers.Constant(2), name="all")

    def update_state(self, labels, outputs, sample_weight=None):
        self.positive.assign_add(keras.ops.sum(labels[:, 0] * sample_weight))
        self.all.assign_add(keras.ops.sum(sample_weight))

    def result(self):
        return self.positive / self.all

    def reset_state(self):
        self.positive.assign(1)
        self.all.assign(2)


class Unweighted(Smoothed):
    """A metric that cannot leave out the padding of a last batch."""

    def __init__(self):
        super().__init__()
        self.name = "unweighted"

    def update_state(self, labels, outputs):
        super().update_state(labels, outputs, keras.ops.ones(len(labels)))


@pytest.mark.parametrize("cuts", [[], [7, 8, 60]])
def test_what_a_state_begins_with_counts_once(cuts):
    metrics = MetricSums([Smoothed()], BINARY[:2], SCORES[:2])
    figure = metrics.results(total(metrics, BINARY, SCORES, WEIGHTS, cuts))["smoothed"]
    assert figure == pytest.approx((1 + (BINARY[:, 0] * WEIGHTS).sum()) / (2 + WEIGHTS.sum()), abs=1e-6)


def test_no_metrics_no_sums():
    metrics = MetricSums([], BINARY[:2], SCORES[:2])
    assert metrics.of_batch(BINARY, SCORES, WEIGHTS) == []
    assert metrics.results([]) == {}


@pytest.mark.parametrize(
    ("metric", "labels", "outputs", "words"),
    [
        ("no such metric", BINARY, SCORES, "'no such metric' is not a metric"),
        (Unweighted(), BINARY, SCORES, "'unweighted' does not fit.*sample_weight"),
        (keras.metrics.MeanSquaredError(), TARGETS, PROBABILITIES, "'mean_squared_error' does not fit"),
    ],
)
def test_metrics_that_do_not_fit_are_told(metric, labels, outputs, words):
    with pytest.raises(ConfigurationError, match=words):
        MetricSums([metric], labels[:2], outputs[:2])
