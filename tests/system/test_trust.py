"""A run that came from elsewhere runs no code of its own, unless the user trusts it."""

from __future__ import annotations

import sys

import pytest
from prepared_data import Result, rows, write_csv

from distrain.config import TrainConfig
from distrain.errors import ConfigurationError
from distrain.inference.evaluate import evaluate_run
from distrain.inference.predict import predict_lines
from distrain.runs.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from distrain.runs.manifest import take_back_checkpoint
from distrain.training.run import train

# Keras reads variables by a way that NumPy will drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TEXTS = ["paint music", "goal match", "chip code"]
MODULE = """
import keras
from pathlib import Path

Path("imported").touch()

class Tower(keras.layers.Layer):
    def call(self, inputs):
        return inputs

def build(text):
    x = inputs = keras.Input((text.num_features,), sparse=True)
    x = keras.layers.Dense(4, activation="relu")(x)
    x = MIDDLE(x)
    model = keras.Model(inputs, keras.layers.Dense(len(text.classes), activation="softmax")(x))
    model.compile(keras.optimizers.Adam(0.05, use_ema=True), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
"""


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """`trained(layer)` trains a model with `layer` in its middle, and forgets its module; returns run and data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    prepared = Result(
        train=write_csv(tmp_path / "train.csv", rows(60)),
        test=write_csv(tmp_path / "test.csv", rows(45)),
        out=tmp_path / "data",
        vectorizer="ngram",
    )
    assert prepared.dataset.parts["train"].num_rows == 60

    def make(layer):
        (tmp_path / "stranger.py").write_text(MODULE.replace("MIDDLE", layer))
        train(TrainConfig(data="data", run=tmp_path / "run", model="stranger:build", epochs=2, global_batch_size=16))
        del sys.modules["stranger"]
        (tmp_path / "imported").unlink()
        return tmp_path / "run"

    yield make
    sys.modules.pop("stranger", None)


def test_a_model_of_keras_layers_is_served_without_its_code(trained, tmp_path):
    run = trained("keras.layers.Dropout(0.5)")
    alone = evaluate_run(run, tmp_path / "data"), list(predict_lines(run, TEXTS))
    assert not (tmp_path / "imported").exists()
    trusted = evaluate_run(run, tmp_path / "data", trust=True), list(predict_lines(run, TEXTS, trust=True))
    assert (tmp_path / "imported").exists()
    assert trusted == alone


def test_a_model_with_code_is_refused_unless_trusted(trained, tmp_path):
    run = trained("Tower()")
    for serve in (lambda: evaluate_run(run, tmp_path / "data"), lambda: list(predict_lines(run, TEXTS))):
        with pytest.raises(ConfigurationError, match=r"--model stranger:build.*it holds stranger\.Tower\..*--trust"):
            serve()
    (path,) = list_checkpoints(run / "checkpoints")[-1:]
    before = load_checkpoint(path)
    forged = {name: value for name, value in before.state.items() if name != "architecture"}
    take_back_checkpoint(run, before.state["global_step"])  # a stranger's run would record the forged checkpoint
    save_checkpoint(run / "checkpoints", before.state["global_step"], before.arrays, forged)
    with pytest.raises(ConfigurationError, match=r"holds nothing that Keras could save"):
        list(predict_lines(run, TEXTS, checkpoint=path.name))
    assert not (tmp_path / "imported").exists()
    assert len(list(predict_lines(run, TEXTS, trust=True))) == len(TEXTS)
    assert (tmp_path / "imported").exists()
