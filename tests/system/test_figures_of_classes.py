"""A run on prepared text ends with figures of each class, whatever its settings are; evaluate prints the same."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from prepared_data import Result, rows, write_csv

from distrain.config import TrainConfig
from distrain.inference.evaluate import evaluate_run
from distrain.inference.predict import predict_lines
from distrain.inference.probabilities import probabilities
from distrain.reporting.html.page import write_report
from distrain.training.run import train

# Keras reads variables by a way that NumPy will drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

MODEL = """
import keras

def build(text):
    model = keras.Sequential([keras.Input((text.num_features,), sparse=True), keras.layers.Dense(OUTPUTS)])
    model.compile(keras.optimizers.Adam(0.05), LOSS)
    return model
"""

LOSS = "keras.losses.SparseCategoricalCrossentropy(from_logits=True)"


@pytest.fixture
def prepared(tmp_path):
    """`prepared(classes)` prepares 60 training and 45 test rows, and returns the folder."""

    def make(classes):
        train_csv = write_csv(tmp_path / "train.csv", rows(60, classes))
        test_csv = write_csv(tmp_path / "test.csv", rows(45, classes))
        Result(train=train_csv, test=test_csv, out=tmp_path / "data", vectorizer="ngram")
        return tmp_path / "data"

    return make


def check_figures(data, run, classes, **settings):
    settings = {"epochs": 2, "global_batch_size": 16, "jit_compile": False, **settings}
    summary = train(TrainConfig(data=data, run=run, **settings))
    assert {name: figures["support"] for name, figures in summary["classes"].items()} == classes
    found = evaluate_run(run, data)
    assert (found["classes"], found["macro_f1"]) == (summary["classes"], summary["macro_f1"])
    assert json.loads((run / "summary.json").read_text())["classes"] == summary["classes"]
    return summary


@pytest.mark.parametrize(
    "settings",
    [
        {"class_weight": "balanced"},
        {"accumulation_steps": 2, "steps_per_execution": 2},
        {"strategy": "mirrored", "devices": "cpu:2"},
    ],
)
def test_a_run_ends_with_figures(tmp_path, prepared, settings):
    classes = {"art": 15, "sport": 15, "tech": 15}
    summary = check_figures(prepared(("sport", "art", "tech")), tmp_path / "run", classes, **settings)
    right = sum(figures["recall"] * figures["support"] for figures in summary["classes"].values())
    assert right / 45 == pytest.approx(summary["validation_accuracy"])
    write_report([tmp_path / "run"], tmp_path / "report.html")
    assert "<td>sport</td>" in (tmp_path / "report.html").read_text()


def test_a_model_of_ones_own_with_logits(tmp_path, prepared, monkeypatch):
    loss = "keras.losses.BinaryCrossentropy(from_logits=True)"
    (tmp_path / "models_of_logits.py").write_text(MODEL.replace("OUTPUTS", "1").replace("LOSS", loss))
    monkeypatch.syspath_prepend(tmp_path)
    data = prepared(("sport", "art"))
    summary = check_figures(data, tmp_path / "run", {"art": 22, "sport": 23}, model="models_of_logits:build", epochs=30)
    assert summary["macro_f1"] > 0.9
    examples = rows(45, ("sport", "art"))
    answers = [json.loads(line) for line in predict_lines(tmp_path / "run", [text for _, text in examples])]
    right = sum(answer["label"] == name for answer, (name, _) in zip(answers, examples, strict=True))
    assert right == pytest.approx(sum(each["recall"] * each["support"] for each in summary["classes"].values()))
    assert all(0.5 <= answer["probability"] <= 1 for answer in answers)


@pytest.mark.parametrize("width", [1, 3])
def test_predict_gives_probabilities_of_logits(width):
    logits = np.array([[-3.0], [0.5], [200.0]]) * np.linspace(1, 2, width)
    activate = keras.ops.sigmoid if width == 1 else keras.ops.softmax
    expected = np.asarray(activate(logits))
    expected = np.hstack([1 - expected, expected]) if width == 1 else expected
    np.testing.assert_allclose(probabilities(logits, is_logits=True), expected, atol=1e-6)
    np.testing.assert_allclose(probabilities(expected[:, -width:], is_logits=False), expected, atol=1e-6)


def test_a_model_without_classes_has_no_figures(tmp_path, prepared, monkeypatch):
    (tmp_path / "models_of_numbers.py").write_text(MODEL.replace("OUTPUTS", "4").replace("LOSS", LOSS))
    monkeypatch.syspath_prepend(tmp_path)
    settings = {"model": "models_of_numbers:build", "epochs": 1, "jit_compile": False}
    summary = train(TrainConfig(data=prepared(("sport", "art")), run=tmp_path / "run", **settings))
    assert "classes" not in summary
