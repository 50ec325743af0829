"""Every loss and every metric of Keras with the labels that suit it, and whether distrain trains or refuses it.

Decides: labels, output and verdict of each class. Never: which classes exist; the tests read them from Keras.

    LOSSES["Huber"].verdict                # EXACT
    loss_case({"Huber": LOSSES["Huber"]})  # a `Case` with this loss alone

All exact losses are outputs of one model, each with a layer of its own. Metrics share one output per kind of labels.
So one training shows a whole family.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras_oracle import Case
from random_heads import Quartic

EXACT, REFUSED, NOT_TAKEN = "exact", "refused", "not taken"
CLASSES = 3
LAYERS, OPS = keras.layers, keras.ops
RAGGED, GLOBAL_BATCH_SIZE = 19, 12  # the last step has 7 examples: of 3 shares one is short, of 12 five are empty

Rng = np.random.Generator


class Kind(NamedTuple):
    """Labels and the output for them: shape of the output, its activation, (rng, n) -> labels, and its dtype."""

    shape: tuple[int, ...]
    activation: str | None
    labels: Callable[[Rng, int], np.ndarray]
    dtype: str | None = None


class Row(NamedTuple):
    """A class of Keras: how it is made, for which kind of labels, and what distrain does with it."""

    make: Callable[[], Any]
    kind: str
    verdict: str = EXACT


class Largest(keras.metrics.Metric):
    """The largest output: a state that does not add up."""

    def __init__(self, name: str = "largest") -> None:
        super().__init__(name=name)
        self.largest = self.add_weight(name="largest", initializer="zeros")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Keep the larger value."""
        self.largest.assign(OPS.maximum(self.largest, OPS.cast(OPS.max(y_pred), self.dtype)))

    def result(self) -> Any:
        """Return the state."""
        return OPS.convert_to_tensor(self.largest)


class Counted(keras.metrics.Metric):
    """The sum of outputs: a metric of a user's own whose state adds up."""

    def __init__(self, name: str = "counted") -> None:
        super().__init__(name=name)
        self.total = self.add_weight(name="total", initializer="zeros")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add the outputs."""
        self.total.assign_add(OPS.cast(OPS.sum(y_pred), self.dtype))

    def result(self) -> Any:
        """Return the state; a copy, since Keras' `fit` would read a variable only after the validation."""
        return OPS.multiply(self.total, 1.0)


def _normal(*shape: int) -> Callable[[Rng, int], np.ndarray]:
    return lambda rng, n: rng.normal(size=(n, *shape)).astype(keras.config.floatx())


def _integers(low: int, high: int, *shape: int) -> Callable[[Rng, int], np.ndarray]:
    return lambda rng, n: rng.integers(low, high, (n, *shape)).astype(keras.config.floatx())


def _one_hot(rng: Rng, n: int) -> np.ndarray:
    return np.eye(CLASSES, dtype=keras.config.floatx())[rng.integers(0, CLASSES, n)]


def _shares(rng: Rng, n: int) -> np.ndarray:
    return rng.dirichlet(np.ones(CLASSES), n).astype(keras.config.floatx())


KINDS: dict[str, Kind] = {
    "numbers": Kind((2,), None, _normal(2)),
    "vectors": Kind((4,), None, _normal(4)),
    "counts": Kind((2,), "softplus", _integers(0, 5, 2)),
    "yes or no": Kind((1,), "sigmoid", _integers(0, 2, 1)),
    "signs": Kind((2,), "tanh", lambda rng, n: 2 * _integers(0, 2, 2)(rng, n) - 1),
    "one-hot": Kind((CLASSES,), "softmax", _one_hot),
    "shares": Kind((CLASSES,), "softmax", _shares),
    "classes": Kind((CLASSES,), "softmax", _integers(0, CLASSES)),
    "single one-hot": Kind((CLASSES,), "softmax", _one_hot, "float32"),  # TensorFlow's top k takes float32 alone
    "single classes": Kind((CLASSES,), "softmax", _integers(0, CLASSES), "float32"),
    "pictures": Kind((3, 2), "sigmoid", _integers(0, 2, 3, 2)),
    "class numbers": Kind((1,), "relu", _integers(0, CLASSES, 1)),
    "sentences": Kind((7, 5), None, _integers(1, 5, 2)),
}
L, M = keras.losses, keras.metrics
LOSSES: dict[str, Row] = {
    "BinaryCrossentropy": Row(lambda: L.BinaryCrossentropy(label_smoothing=0.1), "yes or no"),
    "BinaryFocalCrossentropy": Row(lambda: L.BinaryFocalCrossentropy(apply_class_balancing=True), "yes or no"),
    "CTC": Row(L.CTC, "sentences"),
    "CategoricalCrossentropy": Row(L.CategoricalCrossentropy, "one-hot"),
    "CategoricalFocalCrossentropy": Row(L.CategoricalFocalCrossentropy, "one-hot"),
    "CategoricalGeneralizedCrossEntropy": Row(L.CategoricalGeneralizedCrossEntropy, "classes"),
    "CategoricalHinge": Row(L.CategoricalHinge, "one-hot"),
    "Circle": Row(L.Circle, "class numbers", REFUSED),
    "CosineSimilarity": Row(L.CosineSimilarity, "vectors"),
    "Dice": Row(lambda: L.Dice(axis=(1, 2)), "pictures"),
    "Hinge": Row(L.Hinge, "signs"),
    "Huber": Row(lambda: L.Huber(0.5), "numbers"),
    "KLDivergence": Row(L.KLDivergence, "shares"),
    "LogCosh": Row(L.LogCosh, "numbers"),
    "Loss": Row(Quartic, "numbers"),  # the base class: a user's own
    "MeanAbsoluteError": Row(L.MeanAbsoluteError, "numbers"),
    "MeanAbsolutePercentageError": Row(L.MeanAbsolutePercentageError, "numbers"),
    "MeanSquaredError": Row(L.MeanSquaredError, "numbers"),
    "MeanSquaredLogarithmicError": Row(L.MeanSquaredLogarithmicError, "counts"),
    "Poisson": Row(L.Poisson, "counts"),
    "SparseCategoricalCrossentropy": Row(L.SparseCategoricalCrossentropy, "classes"),
    "SquaredHinge": Row(L.SquaredHinge, "signs"),
    "Tversky": Row(lambda: L.Tversky(axis=(1, 2)), "pictures"),
}
REFUSED_LOSSES: dict[str, Row] = {
    "Circle": LOSSES["Circle"],
    "Dice over the whole batch": Row(L.Dice, "pictures", REFUSED),
    "Tversky over the whole batch": Row(L.Tversky, "pictures", REFUSED),
    "a function of the largest error": Row(lambda: _largest_error, "numbers", REFUSED),
}
METRICS: dict[str, Row] = {
    "AUC": Row(lambda: M.AUC(num_thresholds=20), "yes or no"),
    "Accuracy": Row(M.Accuracy, "class numbers"),
    "BinaryAccuracy": Row(M.BinaryAccuracy, "yes or no"),
    "BinaryCrossentropy": Row(M.BinaryCrossentropy, "yes or no"),
    "BinaryIoU": Row(M.BinaryIoU, "yes or no"),
    "CategoricalAccuracy": Row(M.CategoricalAccuracy, "one-hot"),
    "CategoricalCrossentropy": Row(M.CategoricalCrossentropy, "one-hot"),
    "CategoricalHinge": Row(M.CategoricalHinge, "one-hot"),
    "ConcordanceCorrelation": Row(M.ConcordanceCorrelation, "vectors"),
    "CosineSimilarity": Row(M.CosineSimilarity, "vectors"),
    "F1Score": Row(M.F1Score, "one-hot"),
    "FBetaScore": Row(lambda: M.FBetaScore(beta=2.0), "one-hot"),
    "FalseNegatives": Row(M.FalseNegatives, "yes or no"),
    "FalsePositives": Row(M.FalsePositives, "yes or no"),
    "Hinge": Row(M.Hinge, "signs"),
    "IoU": Row(lambda: M.IoU(CLASSES, (0, 2), sparse_y_pred=False), "classes"),
    "KLDivergence": Row(M.KLDivergence, "shares"),
    "LogCoshError": Row(M.LogCoshError, "numbers"),
    "Mean": Row(M.Mean, "numbers", NOT_TAKEN),
    "MeanAbsoluteError": Row(M.MeanAbsoluteError, "numbers"),
    "MeanAbsolutePercentageError": Row(M.MeanAbsolutePercentageError, "numbers"),
    "MeanIoU": Row(lambda: M.MeanIoU(CLASSES, sparse_y_pred=False), "classes"),
    "MeanMetricWrapper": Row(lambda: M.MeanMetricWrapper(keras.losses.huber, name="wrapped"), "numbers"),
    "MeanSquaredError": Row(M.MeanSquaredError, "numbers"),
    "MeanSquaredLogarithmicError": Row(M.MeanSquaredLogarithmicError, "counts"),
    "Metric": Row(Counted, "numbers"),  # the base class: a user's own
    "OneHotIoU": Row(lambda: M.OneHotIoU(CLASSES, (0, 2)), "one-hot"),
    "OneHotMeanIoU": Row(lambda: M.OneHotMeanIoU(CLASSES), "one-hot"),
    "PearsonCorrelation": Row(M.PearsonCorrelation, "vectors"),
    "Poisson": Row(M.Poisson, "counts"),
    "Precision": Row(lambda: M.Precision(thresholds=[0.3, 0.6]), "yes or no"),
    "PrecisionAtRecall": Row(lambda: M.PrecisionAtRecall(0.5), "yes or no"),
    "R2Score": Row(M.R2Score, "numbers"),
    "Recall": Row(M.Recall, "yes or no"),
    "RecallAtPrecision": Row(lambda: M.RecallAtPrecision(0.5), "yes or no"),
    "RootMeanSquaredError": Row(M.RootMeanSquaredError, "numbers"),
    "SensitivityAtSpecificity": Row(lambda: M.SensitivityAtSpecificity(0.5), "yes or no"),
    "SparseCategoricalAccuracy": Row(M.SparseCategoricalAccuracy, "classes"),
    "SparseCategoricalCrossentropy": Row(M.SparseCategoricalCrossentropy, "classes"),
    "SparseTopKCategoricalAccuracy": Row(lambda: M.SparseTopKCategoricalAccuracy(2), "single classes"),
    "SpecificityAtSensitivity": Row(lambda: M.SpecificityAtSensitivity(0.5), "yes or no"),
    "SquaredHinge": Row(M.SquaredHinge, "signs"),
    "Sum": Row(M.Sum, "numbers", NOT_TAKEN),
    "TopKCategoricalAccuracy": Row(lambda: M.TopKCategoricalAccuracy(2), "single one-hot"),
    "TrueNegatives": Row(M.TrueNegatives, "yes or no"),
    "TruePositives": Row(M.TruePositives, "yes or no"),
}
REFUSED_METRICS: dict[str, Row] = {"a metric of the largest output": Row(Largest, "numbers", REFUSED)}


def _largest_error(y_true: Any, y_pred: Any) -> Any:
    return OPS.max(OPS.abs(y_true - y_pred))


def loss_case(rows: dict[str, Row]) -> Case:
    """Return a case whose outputs have one loss each."""
    kinds = {_named(name): row.kind for name, row in rows.items()}

    def arguments() -> dict[str, Any]:
        return {"loss": _alone({_named(name): row.make() for name, row in rows.items()})}

    return _case(", ".join(rows), kinds, arguments)


def metric_case(rows: dict[str, Row], *, weighted: dict[str, Row] | None = None) -> Case:
    """Return a case with one output per kind of labels, and all metrics of this kind; a metric has its row's name.

    Args:
        rows: metrics that do not see the weights.
        weighted: metrics that see the weights, named `weighted_NAME`.
    """
    groups = {"metrics": rows, "weighted_metrics": weighted or {}}
    kinds = {_named(row.kind): row.kind for group in groups.values() for row in group.values()}

    def named_metric(name: str, row: Row, argument: str) -> Any:
        metric = row.make()
        metric.name = name_of(name, argument)
        return metric

    def metrics_of(argument: str) -> dict[str, list[Any]]:
        metrics: dict[str, list[Any]] = {output: [] for output in kinds}
        for name, row in groups[argument].items():
            metrics[_named(row.kind)].append(named_metric(name, row, argument))
        return metrics

    def arguments() -> dict[str, Any]:
        return {"loss": _mean_square, **{argument: _alone(metrics_of(argument)) for argument in groups}}

    return _case(", ".join(rows), kinds, arguments)


def name_of(metric: str, argument: str) -> str:
    """Return the name of a metric of `metric_case` in an argument of `compile`."""
    return f"weighted_{metric}" if argument == "weighted_metrics" else metric


def figure_of(name: str, row: Row, argument: str) -> str:
    """Return the name of a metric in the logs of a case with all metrics."""
    return f"{_named(row.kind)}_{name_of(name, argument)}"


def _named(name: str) -> str:
    return name.replace(" ", "_")


def _mean_square(y_true: Any, y_pred: Any) -> Any:
    error = y_pred if y_true.shape.rank != y_pred.shape.rank else y_pred - y_true
    return OPS.mean(OPS.square(error), axis=-1)


def _case(words: str, kinds: dict[str, str], arguments: Callable[[], dict[str, Any]]) -> Case:
    """Return a case with a layer of its own for each output."""

    def data(seed: int, n: int) -> tuple[Any, ...]:
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(n, 4)).astype(keras.config.floatx())
        labels = {output: KINDS[kind].labels(rng, n) for output, kind in kinds.items()}
        weights = rng.choice([0, 0.5, 1, 3], n).astype(keras.config.floatx())
        return features, _alone(labels), weights

    def build() -> Any:
        keras.utils.set_random_seed(3)
        inputs = keras.Input((4,))
        outputs = {}
        for output, name in kinds.items():
            kind = KINDS[name]
            flat = LAYERS.Dense(int(np.prod(kind.shape)))(inputs)
            shaped = flat if len(kind.shape) == 1 else LAYERS.Reshape(kind.shape)(flat)
            outputs[output] = LAYERS.Activation(kind.activation, dtype=kind.dtype, name=output)(shaped)
        return keras.Model(inputs, _alone(outputs))

    def compile_arguments() -> dict[str, Any]:
        return {"optimizer": keras.optimizers.SGD(0.01, momentum=0.5), **arguments()}

    return Case(
        words, build, compile_arguments, data(1, RAGGED), data(2, 11), global_batch_size=GLOBAL_BATCH_SIZE, epochs=2
    )


def _alone(values: dict[str, Any]) -> Any:
    return next(iter(values.values())) if len(values) == 1 else values
