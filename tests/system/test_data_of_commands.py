"""`evaluate`, `predict` and `replay` take the data that `train` takes: a named function, arrays, prepared text."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
from prepared_data import Result, rows, write_csv

import distrain
from distrain.cli.main import main
from distrain.config import TrainConfig
from distrain.training.run import train

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras, as it saves

MODULE = """
import keras
import numpy as np

RNG = np.random.default_rng(7)
X = RNG.normal(size=(90, 6)).astype("float32")
Y = (X.sum(axis=1) > 0).astype("int64")

class Rows:
    class_names = ["down", "up"]
    def __init__(self, start, stop):
        self.start, self.stop = start, stop
    def __len__(self):
        return self.stop - self.start
    def __getitem__(self, number):
        return X[self.start + number], Y[self.start + number]

def jittered(example, rng):
    return example[0] + rng.normal(scale=0.1, size=6).astype("float32"), example[1]

def parts():
    whole = {"train": Rows(0, 53), "validation": Rows(53, 70), "test": Rows(70, 90)}
    return {**whole, "map": jittered, "validation_map": lambda example: example}

class Swapped(Rows):
    class_names = ["up", "down"]

def swapped():
    return {"train": Rows(0, 53), "validation": Swapped(53, 70), "test": Rows(70, 90)}

def swapped_test():
    return {"test": Swapped(70, 90)}

def other():
    return {"train": Rows(1, 53), "test": (X[70:], Y[70:])}

def unlabelled():
    return [{"pixels": row} for row in X[70:]]

def wrong_labels():
    return {"test": (X[:9], np.arange(9))}

def scored():
    outputs = {name: keras.layers.Dense(width, name=name) for name, width in (("price", 1), ("kind", 3))}
    inputs = keras.Input((6,))
    model = keras.Model(inputs, {name: layer(inputs) for name, layer in outputs.items()})
    model.compile("sgd", {"price": "mse", "kind": "mse"})
    return model

def scored_rows():
    return [(row, {"price": [1.0], "kind": [0.0, 1.0, 2.0]}) for row in X[:11]]

def build():
    layers = [keras.layers.Dense(8, "tanh"), keras.layers.Dense(2, "softmax")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a module, a run on the data of its function, and the test part as arrays."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "stall.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        settings = {"data": "stall:parts", "model": "stall:build", "global_batch_size": 8}
        train(TrainConfig(run="run", epochs=2, checkpoint_every=3, **settings))
        stall = sys.modules["stall"]
        Path("arrays").mkdir()
        np.save("arrays/test.x.npy", stall.X[70:])
        np.save("arrays/test.y.npy", stall.Y[70:])
        yield folder
    sys.modules.pop("stall", None)


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture
def call(capsys):
    """`call(words)` runs a command; returns its exit code, its standard output and the last line of its errors."""

    def call(words, *more):
        capsys.readouterr()
        code = main([*words.split(), *more])
        captured = capsys.readouterr()
        return code, captured.out, (captured.err.splitlines() or [""])[-1]

    return call


@pytest.fixture(scope="module")
def wanted(folder):
    """Loss, accuracy and outputs of the saved model on the test part, by Keras alone."""
    model = keras.saving.load_model(folder / "run/model.keras")
    x, y = np.load(folder / "arrays/test.x.npy"), np.load(folder / "arrays/test.y.npy")
    return model.evaluate(x, y, verbose=0), model.predict(x, verbose=0)


def test_the_run_names_the_function(folder):
    settings = json.loads((folder / "run/config.json").read_text())
    assert settings["data"] == "stall:parts"
    assert settings["classes"] == ["down", "up"]
    summary = json.loads((folder / "run/summary.json").read_text())
    assert summary["validation_accuracy"] is not None
    assert summary["classes"].keys() == {"down", "up"}


def test_evaluate_takes_the_test_part_of_a_function_and_of_a_folder(call, wanted):
    supports = dict(zip(("down", "up"), np.bincount(sys.modules["stall"].Y[70:]).tolist(), strict=True))
    for data in ("stall:parts", "arrays"):
        code, out, error = call(f"evaluate --run run --data {data}")
        found = json.loads(out)
        assert (code, error, found["examples"]) == (0, "", 20)
        assert {name: figures["support"] for name, figures in found["classes"].items()} == supports
        assert [found["loss"], found["accuracy"]] == pytest.approx(wanted[0], abs=1e-5)
    code, out, error = call("evaluate --run run --data stall:other")
    assert json.loads(out)["loss"] == pytest.approx(wanted[0][0], abs=1e-5)
    assert "stall:other has other training data than run, or the same data in another form" in error


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_predict_writes_each_example_in_order(call, wanted, ending, tmp_path):
    path = tmp_path / f"p.{ending}"
    code, out, _ = call(f"predict --run run --data stall:parts --out {path}")
    assert (code, out) == (0, f"20 predictions of the test part in {path}\n")
    is_parquet = ending == "parquet"
    found = pq.read_table(path).to_pylist() if is_parquet else list(map(json.loads, path.read_text().splitlines()))
    assert [row["example"] for row in found] == list(range(20))
    np.testing.assert_allclose([row["prediction"] for row in found], wanted[1], atol=1e-6)
    assert [row["label"] for row in found] == [["down", "up"][best] for best in wanted[1].argmax(axis=1)]
    np.testing.assert_allclose([row["probability"] for row in found], wanted[1].max(axis=1), atol=1e-6)
    assert list(tmp_path.iterdir()) == [path]


def test_predict_needs_no_labels_and_prints_without_a_file(call, wanted):
    for data in ("arrays", "stall:unlabelled"):
        _, out, _ = call(f"predict --run run --data {data}")
        found = [json.loads(line)["prediction"] for line in out.splitlines()]
        np.testing.assert_allclose(found, wanted[1], atol=1e-6)
    assert len(call("predict --run run --data stall:parts --part validation")[1].splitlines()) == 17
    assert len(call("predict --run run --data stall:parts --part train")[1].splitlines()) == 53


def test_a_failed_prediction_leaves_the_file_before(call, tmp_path, monkeypatch):
    path = tmp_path / "p.jsonl"
    path.write_text("before")
    stall = sys.modules["stall"]
    monkeypatch.setattr(
        stall.Rows, "__getitem__", lambda rows, number: (stall.X[number], 1) if number != 12 else {}[number]
    )
    code, _, error = call(f"predict --run run --data stall:parts --out {path}")
    assert (code, path.read_text(), list(tmp_path.iterdir())) == (3, "before", [path])
    assert "test of stall:parts cannot read example 12: KeyError" in error


def test_a_run_of_fit_is_served_with_all_its_outputs(call):
    model = sys.modules["stall"].scored
    distrain.fit(model, sys.modules["stall"].scored_rows(), run="fitted", epochs=1, batch_size=4, verbose=0)
    _, out, _ = call("predict --run fitted --data stall:scored_rows")
    found = list(map(json.loads, out.splitlines()))
    outputs = keras.saving.load_model("fitted/model.keras").predict(sys.modules["stall"].X[:11], verbose=0)
    np.testing.assert_allclose([row["prediction_price"] for row in found], outputs["price"][:, 0], atol=1e-6)
    np.testing.assert_allclose([row["prediction_kind"] for row in found], outputs["kind"], atol=1e-6)
    assert found[0].keys() == {"example", "prediction_price", "prediction_kind"}


def test_replay_imports_the_function_of_a_trusted_run_alone(call):
    code, _, error = call("replay --run run --step 4")
    assert code == 2
    assert "was trained with --data stall:parts --model stall:build" in error
    code, out, _ = call("replay --run run --step 4 --trust")
    assert (code, json.loads(out)["step"]) == (0, 4)
    assert call("replay --run run --step 4 --trust --data stall:other")[0] == 4


def test_predict_of_prepared_text_names_the_classes(call):
    train_csv, test_csv = (
        write_csv(Path("train.csv").absolute(), rows(60)),
        write_csv(Path("t.csv").absolute(), rows(9)),
    )
    Result(train=train_csv, test=test_csv, out=Path("text").absolute(), vectorizer="ngram")
    train(TrainConfig(data="text", run="text_run", epochs=1))
    _, out, _ = call("predict --run text_run --data text")
    found = list(map(json.loads, out.splitlines()))
    assert len(found) == json.loads(call("evaluate --run text_run --data text")[1])["examples"]
    classes = json.loads(Path("text_run/config.json").read_text())["text"]["classes"]
    assert all(row["label"] == classes[int(np.argmax(row["prediction"]))] for row in found)
    for command in ("evaluate", "predict"):
        code, _, error = call(f"{command} --run text_run --data stall:parts")
        assert (code, "was trained on prepared text, which stall:parts is not" in error) == (3, True)
        code, _, error = call(f"{command} --run run --data text")
        assert (code, "text is not the data that run was trained on" in error) == (3, True)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("evaluate --data stall:unlabelled", 2, "stall:unlabelled has no test or validation part: it has train"),
        ("evaluate --data stall:nothing", 2, "stall has no 'nothing'"),
        ("evaluate --data stall:wrong_labels", 3, "labels run from 0 to 8, and example 2 has 2"),
        ("evaluate --data absent", 3, "absent is not a prepared data set"),
        ("predict --data arrays --part validation", 2, "arrays has no validation part: it has test"),
        ("predict --data arrays --out p.csv", 2, "its ending must be .parquet or .jsonl"),
        ("predict --data arrays --out absent/p.jsonl", 2, "lies in absent, which is no folder"),
        ("predict --data arrays lines.txt", 2, "lines.txt and --data are both given"),
        ("predict --out p.jsonl", 2, "--out goes with --data"),
        ("predict --part test", 2, "--part goes with --data"),
        ("evaluate --data stall:swapped_test", 3, "stall:swapped_test numbers the classes of its test part otherwise"),
        (
            "train --data stall:swapped --model stall:build",
            2,
            "has the classes up, down, but train of",
        ),
        ("train --data arrays --model stall:build", 3, "arrays to test, but none to train"),
        ("train --data stall:unlabelled --model stall:build", 2, "the examples have no labels"),
    ],
)
def test_a_refusal_is_a_sentence(call, words, code, message):
    command, *more = words.split()
    run = "new" if command == "train" else "run"
    found, _, error = call(f"{command} --run {run}", *more)
    assert (found, message in error) == (code, True), error
