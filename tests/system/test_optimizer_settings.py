"""Settings of the optimizer act in a run as the same optimizer acts in plain Keras on the joined batches."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

import distrain
from distrain.errors import CheckpointError, ConfigurationError

# Keras reads variables by a way that NumPy will drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NUM_EXAMPLES, GLOBAL_BATCH, EPOCHS = 50, 16, 3  # 4 steps an epoch; the last step has two examples
NUM_STEPS = 12
RNG = np.random.default_rng(3)
X = RNG.normal(size=(NUM_EXAMPLES, 5)).astype("float32")
Y = (X @ RNG.normal(size=(5, 1))).astype("float32")
COSINE = {"warmup_target": 0.05, "warmup_steps": 3}
LINEAR = {"decay_steps": NUM_STEPS, "end_learning_rate": 0.0}
SCHEDULES = keras.optimizers.schedules


def build():
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])


def trained(run=None, **settings):
    settings = {"loss": "mse", "epochs": EPOCHS, "global_batch_size": GLOBAL_BATCH, "jit_compile": False, **settings}
    return distrain.fit(build, (X, Y), run=run, **settings)


def witness(optimizer, epochs=EPOCHS):
    """Plain Keras, given the joined batches in the order of the run."""
    keras.utils.set_random_seed(0)
    model = build()
    model.compile(optimizer, loss="mse", run_eagerly=True)
    for epoch in range(epochs):
        order = distrain.epoch_order(NUM_EXAMPLES, seed=0, epoch=epoch)
        rows = order.examples(range(NUM_EXAMPLES))
        for first in range(0, NUM_EXAMPLES, GLOBAL_BATCH):
            batch = rows[first : first + GLOBAL_BATCH]
            model.train_on_batch(X[batch], Y[batch])
    return model


def same_weights(result, model):
    for ours, theirs in zip(result.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


CASES = {
    "default": ({}, lambda: keras.optimizers.Adam(0.001)),
    "rate": ({"learning_rate": 0.05}, lambda: keras.optimizers.Adam(0.05)),
    "clip": ({"clip_norm": 0.3}, lambda: keras.optimizers.Adam(global_clipnorm=0.3)),
    "linear": (
        {"learning_rate": 0.05, "schedule": "linear"},
        lambda: keras.optimizers.Adam(SCHEDULES.PolynomialDecay(0.05, **LINEAR)),
    ),
    "cosine": (
        {"learning_rate": 0.05, "schedule": "cosine", "warmup_steps": 3},
        lambda: keras.optimizers.Adam(SCHEDULES.CosineDecay(0.0, NUM_STEPS - 3, **COSINE)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_trains_as_plain_keras_with_that_optimizer(case):
    settings, optimizer = CASES[case]
    same_weights(trained(**settings), witness(optimizer()))


@pytest.mark.parametrize("optimizer", ["sgd", keras.optimizers.Adam])
def test_a_learning_rate_beside_an_own_optimizer_is_refused(optimizer):
    with pytest.raises(ConfigurationError, match="--learning-rate: without effect"):
        trained(optimizer=optimizer if isinstance(optimizer, str) else optimizer(), learning_rate=0.001)


def test_a_resumed_run_must_keep_its_schedule(tmp_path):
    run = tmp_path / "run"
    trained(run=run, schedule="linear")
    assert json.loads((run / "config.json").read_text())["scheduled_steps"] == NUM_STEPS
    with pytest.raises(CheckpointError, match=r"scheduled_steps = 12, not 20\. The learning rate falls .* --epochs"):
        trained(run=run, schedule="linear", epochs=5)
    with pytest.raises(CheckpointError, match="schedule = 'linear', not 'cosine'"):
        trained(run=run, schedule="cosine")
