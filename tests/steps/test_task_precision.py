"""Floating features, labels and weights reach a model's own `compute_loss` in Keras' default precision, as in `fit`."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import distrain

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras, in its logs

X = np.random.default_rng(2).normal(size=(10, 3))
Y = X.sum(axis=1, keepdims=True)
WEIGHTS = np.linspace(0, 1, 10)


class Own(keras.Model):
    """A model that computes with its inputs, labels and weights without a cast."""

    def __init__(self):
        super().__init__()
        keras.utils.set_random_seed(1)
        self.dense, self.dtypes = keras.layers.Dense(1), []

    def call(self, inputs):
        return self.dense(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self.dtypes.append((x.dtype.name, y.dtype.name, sample_weight.dtype.name))
        return keras.ops.mean((y - y_pred) ** 2 * sample_weight[:, None] + (x[:, :1] - y_pred) ** 2)


def own_model():
    model = Own()
    model.compile(keras.optimizers.SGD(0.1))
    return model


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_a_model_of_its_own_loss_trains_as_in_fit(dtype, tmp_path):
    x, y, weights = (array.astype(dtype) for array in (X, Y, WEIGHTS))
    witness = own_model()
    witness.run_eagerly = True  # else Keras would compile a step
    order = distrain.epoch_order(10, seed=0, epoch=0).examples(range(10))
    witness.fit(x[order], y[order], sample_weight=weights[order], batch_size=4, shuffle=False, verbose=0)
    assert set(witness.dtypes) == {("float32",) * 3}
    trained = []
    distrain.fit(
        lambda: trained.append(own_model()) or trained[0],
        (x, y, weights),
        epochs=1,
        global_batch_size=4,
        seed=0,
        devices="cpu:1",
        jit_compile=False,
        callbacks=[Keeping(trained)],
    )
    assert set(trained[0].dtypes) == {("float32",) * 3}
    for own, wanted in zip(trained[1], witness.get_weights(), strict=True):
        np.testing.assert_allclose(own, wanted, atol=1e-6)


class Keeping(keras.callbacks.Callback):
    """Keeps the weights at the end of an epoch."""

    def __init__(self, kept):
        super().__init__()
        self.kept = kept

    def on_epoch_end(self, epoch, logs=None):
        self.kept.append(self.model.get_weights())
