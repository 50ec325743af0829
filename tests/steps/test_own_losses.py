"""Losses of a user's own, and losses without a reduction, train and are shown as by plain Keras; shares are ragged."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras_oracle import Case, apart, by_distrain, by_keras

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(19, 4)).astype(np.float32)  # steps of 12 and of 7 examples
Y = X.sum(axis=1, keepdims=True)
WEIGHTS = RANDOM.uniform(0, 2, 19).astype(np.float32)


class NamesOfItsOwn(keras.Model):
    """Takes the arguments of `compute_loss` by position, as Keras gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)

    def compute_loss(self, given: Any, wanted: Any, found: Any, *more: Any) -> Any:
        return keras.ops.mean(keras.ops.abs(wanted - found))


class AnyArguments(NamesOfItsOwn):
    """Hands all arguments on."""

    def compute_loss(self, *arguments: Any, **more: Any) -> Any:
        return keras.Model.compute_loss(self, *arguments, **more) + keras.ops.mean(keras.ops.abs(arguments[2]))


class TracksItsLoss(NamesOfItsOwn):
    """Updates metrics of its own in `compute_loss`, which count steps and examples."""

    def __init__(self) -> None:
        super().__init__()
        self.mean_of_steps = keras.metrics.Mean(name="loss")
        self.error = keras.metrics.MeanAbsoluteError(name="error")

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> Any:
        loss = keras.ops.mean(keras.ops.abs(y - y_pred))
        self.mean_of_steps.update_state(loss)
        self.error.update_state(y, y_pred)
        return loss

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        return {metric.name: metric.result() for metric in self.metrics}

    @property
    def metrics(self) -> list[Any]:
        return [self.mean_of_steps, self.error]


def sequential() -> Any:
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])


CASES = {
    "names of its own": (NamesOfItsOwn, "mse"),
    "any arguments": (AnyArguments, "mse"),
    "tracks its loss": (TracksItsLoss, None),
    "without reduction": (sequential, keras.losses.MeanSquaredError(reduction=None)),
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # from within Keras
@pytest.mark.parametrize("name", CASES)
def test_a_loss_is_that_of_keras(name):
    """With one microbatch in a step, and with three."""
    make, loss = CASES[name]

    def build() -> Any:
        keras.utils.set_random_seed(1)
        return make()

    case = Case(name, build, lambda: {"optimizer": keras.optimizers.SGD(0.01), "loss": loss}, (X, Y, WEIGHTS), (X, Y))
    witness = by_keras(case)
    for accumulation_steps in (1, 3):
        difference = apart(witness, by_distrain(case, strategy="single", accumulation_steps=accumulation_steps))
        assert difference.weights <= 1e-5, accumulation_steps
        assert difference.metrics <= 2e-6, (accumulation_steps, difference.where)
