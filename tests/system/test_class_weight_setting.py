"""`--class-weight` weighs the training rows of prepared data, as a user's own sample weights do."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

import distrain
from distrain.config import TrainConfig
from distrain.errors import CheckpointError
from distrain.training.run import train

# Keras reads variables by a way that NumPy will drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NUM_EXAMPLES, GLOBAL_BATCH = 50, 16
RNG = np.random.default_rng(7)
X = RNG.normal(size=(NUM_EXAMPLES, 5)).astype("float32")
Y = (RNG.random(NUM_EXAMPLES) < 0.2).astype("int64")
MODEL = """
import keras
def build():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", loss="sparse_categorical_crossentropy")
    return model
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of arrays and a module with a model."""
    for part in ("train", "test"):
        np.save(tmp_path / f"{part}.x.npy", X)
        np.save(tmp_path / f"{part}.y.npy", Y)
    (tmp_path / "models_of_class_weights.py").write_text(MODEL)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def config(folder, **settings):
    settings = {"epochs": 2, "global_batch_size": GLOBAL_BATCH, "model": "models_of_class_weights:build", **settings}
    return TrainConfig(data=folder, run=folder / "run", **settings)


@pytest.mark.parametrize("setting", ["balanced", "1=7.5"])
def test_a_run_weighs_classes_as_keras_does(setting, folder):
    from models_of_class_weights import build

    train(config(folder, class_weight=setting))
    counts = np.bincount(Y)
    weights = (
        {0: NUM_EXAMPLES / (2 * counts[0]), 1: NUM_EXAMPLES / (2 * counts[1])} if setting == "balanced" else {1: 7.5}
    )
    keras.utils.set_random_seed(0)
    model = build()
    losses = []
    for epoch in range(2):
        rows = distrain.epoch_order(NUM_EXAMPLES, seed=0, epoch=epoch).examples(range(NUM_EXAMPLES))
        fitted = model.fit(X[rows], Y[rows], batch_size=GLOBAL_BATCH, shuffle=False, class_weight=weights, verbose=0)
        losses.append(fitted.history["loss"][0])
    validation = model.evaluate(X, Y, batch_size=GLOBAL_BATCH, verbose=0)
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if line["event"] == "epoch"]
    assert [epoch["loss"] for epoch in epochs] == pytest.approx(losses, rel=1e-5)
    assert epochs[-1]["val_loss"] == pytest.approx(validation, rel=1e-5), "validation data is not weighed"
    settings = json.loads((folder / "run" / "config.json").read_text())
    assert settings["class_weight"] == setting
    assert settings["class_weights"] == pytest.approx({str(label): weight for label, weight in weights.items()})


def test_a_resumed_run_must_keep_its_weights(folder):
    train(config(folder, class_weight="1=2"))
    with pytest.raises(CheckpointError, match="class_weight = '1=2', not '1=3'"):
        train(config(folder, class_weight="1=3", epochs=3))
