"""The final model holds the averages of the weights if the optimizer keeps averages, as after Keras' own `fit`."""

from __future__ import annotations

from functools import partial

import keras
import numpy as np
import pytest

import distrain
from distrain.config import TrainConfig
from distrain.data.batches import sample_batch
from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.shuffle import epoch_order
from distrain.data.sources import part_examples
from distrain.inference.finished_run import open_finished_run
from distrain.models.state import ModelState
from distrain.training.run import train

# Keras converts its own variables so.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(43, 4)).astype("float32")
Y = X.sum(1, keepdims=True)


def linear():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="zeros")])


def averages_of_keras(frequency, epochs):
    """Return the averages after these epochs of plain Keras; the trained weights themselves are others."""
    witness = linear()
    witness.compile(averaging(frequency), "mse", jit_compile=False)
    for epoch in range(epochs):
        order = epoch_order(43, seed=5, epoch=epoch)
        for start in range(0, 43, 16):
            rows = order.examples(range(start, min(43, start + 16)))
            witness.train_on_batch(X[rows], Y[rows])
    trained = witness.get_weights()
    witness.optimizer.finalize_variable_values(witness.trainable_variables)
    assert not np.allclose(trained[0], witness.get_weights()[0], rtol=1e-3)
    return witness.get_weights()


def averaging(frequency=None):
    return keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=frequency)


SETTINGS = {"loss": "mse", "global_batch_size": 16, "seed": 5}


@pytest.mark.parametrize("frequency", [None, 4])
def test_a_run_ends_with_the_averages_of_keras(frequency):
    result = distrain.fit(linear, (X, Y), optimizer=partial(averaging, frequency), epochs=2, **SETTINGS)
    for own, wanted in zip(result.model.get_weights(), averages_of_keras(frequency, epochs=2), strict=True):
        np.testing.assert_allclose(own, wanted, rtol=1e-5, atol=1e-6)


def test_a_best_epoch_before_the_last_holds_its_averages_too():
    """Validation on the opposite targets is best after the first epoch."""
    best = distrain.fit(linear, (X, Y), (X, -Y), optimizer=averaging, epochs=3, **SETTINGS)
    assert np.argmin([epoch["val_loss"] for epoch in best.history]) == 0
    for own, wanted in zip(best.model.get_weights(), averages_of_keras(None, epochs=1), strict=True):
        np.testing.assert_allclose(own, wanted, rtol=1e-5, atol=1e-6)


def test_a_run_on_text_is_opened_with_its_averages(text, tmp_path):
    config = TrainConfig(data=text["ngram"], run=tmp_path / "run", ema=0.9, epochs=2, strategy="single")
    summary = train(config)
    finished = open_finished_run(tmp_path / "run")
    examples = part_examples(open_dataset(text["ngram"]).parts["test"], **finished.row_layout)
    assert sample_batch(examples).num_rows > 0
    model = finished.load_model(examples).model
    assert ModelState(model).weights_digest() == summary["weights_sha256"]
