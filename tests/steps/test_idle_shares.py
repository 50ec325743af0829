"""A share without examples adds nothing to the number by which Keras divides a loss.

The last step has 1 example in 3 shares, so two shares are idle; each is fed an example that does not count.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras_oracle import Case, apart, by_distrain, by_keras

SHARES = 3


def masked_layers() -> list:
    return [
        keras.Input((5,), dtype="int32"),
        keras.layers.Embedding(7, 3, mask_zero=True),
    ]


def case(*, is_masked: bool, reduction: str) -> Case:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 7, (13, 5)) if is_masked else rng.normal(size=(13, 3)).astype(np.float32)
    y = rng.normal(size=(13, 5, 2) if is_masked else (13, 2)).astype(np.float32)
    weights = rng.choice([0.5, 1, 3], (13, 1) if is_masked else 13).astype(np.float32)

    def build() -> keras.Model:
        keras.utils.set_random_seed(1)
        return keras.Sequential([*(masked_layers() if is_masked else [keras.Input((3,))]), keras.layers.Dense(2)])

    def arguments() -> dict:
        return {"optimizer": keras.optimizers.SGD(0.1), "loss": keras.losses.MeanSquaredError(reduction=reduction)}

    return Case("idle shares", build, arguments, (x, y, weights), (x[:4], y[:4], weights[:4]), epochs=2)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # from within Keras
@pytest.mark.parametrize(
    ("is_masked", "reduction"), [(False, "mean_with_sample_weight"), (True, "sum_over_batch_size")]
)
def test_idle_shares_leave_the_divisor_alone(is_masked, reduction):
    drawn = case(is_masked=is_masked, reduction=reduction)
    difference = apart(by_keras(drawn), by_distrain(drawn, strategy="single", accumulation_steps=SHARES))
    assert difference.weights <= 1e-6
    assert difference.metrics <= 1e-5, difference.where
