"""The last layer of the shipped models, by task: classes, sets of labels, or a number; with its loss and metrics.

Decides: outputs, activation, loss and metrics of a task. Never: what comes before the last layer.

    head = head_of("multilabel")
    outputs = head.outputs(head.layer(num_classes=30, dtype="float32")(hidden))           # 30 sigmoids
    model.compile(optimizer, head.loss(num_classes=30), metrics=head.metrics())

The model of a number answers mean + deviation x output. So the layers compute with numbers around 0, and answers have
the unit of the targets. The loss is the mean squared error divided by the variance, so a model that answers the
mean has 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from distrain.models.weight_count import num_outputs


@keras.saving.register_keras_serializable("distrain")
class ScaledSquaredError(keras.losses.MeanSquaredError):
    """The mean squared error of outputs in units of `deviation`."""

    def __init__(self, deviation: float, **settings: Any) -> None:
        super().__init__(**settings)
        self.deviation = deviation

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the error of each example."""
        # The square of a small deviation, or of a large error, may leave float32; the square of their ratio does not.
        return super().call(y_true / self.deviation, y_pred / self.deviation)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of `__init__`."""
        return {"deviation": self.deviation, **super().get_config()}


@dataclass(frozen=True)
class Head:
    """The last layer of a model.

    Attributes:
        task: "classification", "multilabel" or "regression".
        mean: mean of the training targets of a regression, else 0.
        deviation: standard deviation of the training targets of a regression, else 1.
    """

    task: str = "classification"
    mean: float = 0.0
    deviation: float = 1.0

    def layer(self, num_classes: int, dtype: Any) -> Any:
        """Return the layer, not built yet; `dtype` as of a Keras layer."""
        outputs = num_outputs(self.task, num_classes)
        if self.task == "regression":
            return keras.layers.Dense(outputs, dtype=dtype)
        activation = "sigmoid" if self.task == "multilabel" or num_classes == 2 else "softmax"
        return keras.layers.Dense(outputs, activation=activation, dtype=dtype)

    def outputs(self, values: Any) -> Any:
        """Return the outputs of the model for the outputs of the layer."""
        return values * self.deviation + self.mean if self.task == "regression" else values

    def loss(self, num_classes: int) -> Any:
        """Return the loss."""
        if self.task == "regression":
            return ScaledSquaredError(self.deviation)
        if self.task == "multilabel" or num_classes == 2:
            return keras.losses.BinaryCrossentropy()
        return keras.losses.SparseCategoricalCrossentropy()

    def metrics(self) -> list[Any]:
        """Return the metrics, as `model.compile` takes them."""
        if self.task == "regression":
            return [
                keras.metrics.MeanSquaredError(name="mse"),
                keras.metrics.MeanAbsoluteError(name="mae"),
            ]
        if self.task == "multilabel":
            return [
                keras.metrics.F1Score(average=kind, threshold=0.5, name=f"{kind}_f1") for kind in ("micro", "macro")
            ]
        return ["accuracy"]

    def config(self) -> dict[str, Any]:
        """Return the arguments of a model that make this head; none for classes."""
        if self.task == "classification":
            return {}
        scale = {"target_mean": self.mean, "target_deviation": self.deviation} if self.task == "regression" else {}
        return {"task": self.task, **scale}


CLASSES = Head()


def head_of(task: str, mean: float | None = None, deviation: float | None = None) -> Head:
    """Return the head of a task; a regression takes mean and deviation of its targets."""
    return Head(task) if mean is None or deviation is None else Head(task, mean, deviation)
