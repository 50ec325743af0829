"""A metric of a user's own may return one of its variables as its result."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras_oracle import Case, apart, by_distrain, by_keras


class Total(keras.metrics.Metric):
    """The sum of outputs."""

    def __init__(self) -> None:
        super().__init__(name="total")
        self.total = self.add_weight(name="total", initializer="zeros")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.total.assign_add(keras.ops.sum(y_pred))

    def result(self) -> Any:
        return self.total


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # from within Keras
def test_a_result_may_be_a_variable():
    def build() -> keras.Model:
        keras.utils.set_random_seed(1)
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])

    def arguments() -> dict[str, Any]:
        return {"optimizer": keras.optimizers.SGD(0.1), "loss": "mse", "metrics": [Total()]}

    x = np.random.default_rng(0).normal(size=(13, 3)).astype(np.float32)
    case = Case("own metric", build, arguments, (x, x[:, :2]), epochs=2)
    trained = by_distrain(case, strategy="single", accumulation_steps=3)
    assert apart(by_keras(case), trained).metrics <= 1e-5
    assert all(epoch["total"] != 0 for epoch in trained.logs)
