"""Several labels and numbers of prepared text, with weights: plain Keras, more replicas, `evaluate` and `predict`."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support
from sklearn.utils.class_weight import compute_class_weight

import distrain
from distrain.cli.main import main
from distrain.config import PrepareConfig, TrainConfig
from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.sources import part_examples
from distrain.errors import ConfigurationError
from distrain.inference.evaluate import evaluate_run
from distrain.inference.predict import predict_lines
from distrain.models.build import text_model
from distrain.models.heads import head_of
from distrain.prepare.pipeline import prepare
from distrain.reporting.console import open_console
from distrain.training.run import train

# Keras reads variables by a way that NumPy will drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TASKS = ("multilabel", "regression")
REPLICAS = {"multilabel": 2, "regression": 3}  # both divide 18, and the last step is ragged
NUM_ROWS, GLOBAL_BATCH, EPOCHS = 100, 18, 2
WORDS = {"art": "paint brush", "sea": "ship wave", "war": "gun siege"}
SETTINGS = {"epochs": EPOCHS, "global_batch_size": GLOBAL_BATCH, "dropout": 0.0, "learning_rate": 0.01, "patience": 0}
SETTINGS |= {"jit_compile": False}  # compiling takes longer than the run


def texts(count, seed):
    """Rows of 0 to 3 labels, whose words tell the labels and the target."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        labels = rng.permutation(list(WORDS))[: number % 4].tolist()
        words = [word for label in labels for word in WORDS[label].split()]
        weight, target = float(rng.integers(0, 4)), 300.0 + 100 * len(labels) + float(rng.normal())
        yield {"label": labels, "text": " ".join([*words, "the", "of"]), "weight": weight, "target": target}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, many_runs):
    """Prepared data of each task, and a run TASK-REPLICAS for each number of replicas."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, count, seed in (("train", NUM_ROWS, 0), ("test", 30, 1)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts(count, seed)))
    for task, column in zip(TASKS, ("label", "target"), strict=True):
        settings = {"task": task, "label_column": column, "vectorizer": "ngram", "weight_column": "weight"}
        files = {"train": folder / "train.jsonl", "test": folder / "test.jsonl", "out": folder / task}
        prepare(PrepareConfig(**files, **settings, workers=1), console=open_console())

    def runs(task, replicas):
        own = {"data": folder / task, "run": folder / f"{task}-{replicas}", "devices": f"cpu:{replicas}"}
        return [{**SETTINGS, **own}]

    many_runs(*(runs(task, replicas) for task, replicas in REPLICAS.items()))
    for task in TASKS:
        train(TrainConfig(data=folder / task, run=folder / f"{task}-1", **SETTINGS))
    return folder


def arrays(dataset, part):
    """Dense features, labels and weights of a part."""
    examples = part_examples(dataset.parts[part], length=1)
    count = examples.num_examples
    rows, labels, weights = examples.load(np.array([[0, count]]), np.arange(count))(0, count)
    dense = np.zeros((count, dataset.num_features), np.float32)
    dense[rows.row_ids, rows.columns] = rows.values
    return dense, labels, weights


def keras_model(dataset):
    """The shipped model in Keras' own layers, with the same weights at the start."""
    keras.utils.set_random_seed(0)
    config = TrainConfig(data="data", run="run")
    head = head_of(dataset.task, dataset.target_mean, dataset.target_deviation)
    sizes = {"num_features": dataset.num_features, "num_classes": len(dataset.classes)}
    shipped = text_model(dataset.kind, **sizes, config=config, head=head)
    layers = [keras.Input((dataset.num_features,)), keras.layers.Dense(config.units, "relu")]
    loss: dict[str, object] = {"loss": "binary_crossentropy"}
    if dataset.task == "classification":
        layers.append(keras.layers.Dense(len(dataset.classes), "softmax"))
        loss = {"loss": "sparse_categorical_crossentropy"}
    elif dataset.task == "multilabel":
        layers.append(keras.layers.Dense(len(dataset.classes), "sigmoid"))
    else:
        layers += [keras.layers.Dense(1), keras.layers.Rescaling(dataset.target_deviation, dataset.target_mean)]
        loss = {"loss": "mse", "loss_weights": [dataset.target_deviation**-2]}
    model = keras.Sequential(layers)
    model.set_weights(shipped.get_weights())
    model.compile(keras.optimizers.Adam(SETTINGS["learning_rate"]), **loss, run_eagerly=True)
    return model


@pytest.mark.parametrize("task", TASKS)
def test_a_run_is_that_of_plain_keras(task, folder, last_weights):
    dataset = open_dataset(folder / task)
    model = keras_model(dataset)
    x, y, weights = arrays(dataset, "train")
    losses = []
    for epoch in range(EPOCHS):
        rows = distrain.epoch_order(NUM_ROWS, seed=0, epoch=epoch).examples(range(NUM_ROWS))
        data = {"x": x[rows], "y": y[rows], "sample_weight": weights[rows]}
        losses.append(model.fit(**data, batch_size=GLOBAL_BATCH, shuffle=False, verbose=0).history["loss"][0])
    x, y, weights = arrays(dataset, "test")
    validation = model.evaluate(x, y, sample_weight=weights, batch_size=GLOBAL_BATCH, verbose=0)
    lines = [json.loads(line) for line in (folder / f"{task}-1" / "metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if line["event"] == "epoch"]
    assert [epoch["loss"] for epoch in epochs] == pytest.approx(losses, rel=1e-5)
    assert epochs[-1]["val_loss"] == pytest.approx(validation, rel=1e-5)
    for name, array in zip(sorted(last_weights(folder / f"{task}-1")), model.get_weights(), strict=True):
        np.testing.assert_allclose(last_weights(folder / f"{task}-1")[name], array, atol=1e-5)
    found = model.predict(x, verbose=0)
    if task == "multilabel":
        scores = {
            f"val_{mean}_f1": f1_score(y, found > 0.5, average=mean, zero_division=0) for mean in ("micro", "macro")
        }
    else:
        errors = found[:, 0] - y
        scores = {"val_mse": np.mean(errors**2), "val_mae": np.mean(np.abs(errors))}
    assert {name: epochs[-1][name] for name in scores} == pytest.approx(scores, rel=1e-4)


@pytest.mark.parametrize(("task", "replicas"), REPLICAS.items())
def test_replicas_do_not_change_the_model(task, replicas, folder, difference):
    apart = difference(folder / f"{task}-1", folder / f"{task}-{replicas}")
    assert apart.weights <= 1e-5
    assert apart.validation_loss <= 1e-5


def test_evaluate_and_predict(folder):
    found = evaluate_run(folder / "multilabel-1", folder / "multilabel")
    assert found["classes"].keys() == WORDS.keys()
    assert found["micro_f1"] > 0.5
    summary = json.loads((folder / "multilabel-1" / "summary.json").read_text())
    assert summary["classes"].keys() == WORDS.keys()
    lines = list(predict_lines(folder / "multilabel-1", ["gun siege ship wave", "the of"]))
    first, second = map(json.loads, lines)
    assert {"war", "sea"} <= set(first["labels"])
    assert first["probabilities"] == sorted(first["probabilities"], reverse=True)
    assert second == {"labels": [], "probabilities": []}
    assert evaluate_run(folder / "regression-1", folder / "regression").keys() >= {"loss", "mse", "mae"}
    (answer,) = map(json.loads, predict_lines(folder / "regression-1", ["gun siege ship wave paint brush"]))
    assert 300 < answer["value"] < 700


def test_balanced_classes_are_those_of_plain_keras(tmp_path, capsys, last_weights):
    """Class 2 has 4 training rows of 100, and the words of another class in its test rows."""
    rows = [("art", "paint brush"), ("sea", "ship wave")] * 48 + [("war", "paint brush ship wave")] * 4
    files = {"train": tmp_path / "train.jsonl", "test": tmp_path / "test.jsonl", "out": tmp_path / "data"}
    for name, part in (("train", rows), ("test", [*rows[:10], ("war", "ship wave")])):
        lines = [json.dumps({"label": label, "text": f"{text} the of"}) + "\n" for label, text in part]
        files[name].write_text("".join(lines))
    prepare(PrepareConfig(**files, vectorizer="ngram", workers=1), console=open_console())
    options = {name: value for name, value in SETTINGS.items() if name != "jit_compile"}  # whose option is --no-jit
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    where = ["--data", str(tmp_path / "data"), "--run", str(tmp_path / "run")]
    assert main(["train", *where, *words, "--class-weight=balanced", "--no-jit"]) == 0
    assert "no validation example of class 'war' is recognized: a larger weight may help" in capsys.readouterr().out

    dataset = open_dataset(tmp_path / "data")
    x, y, _ = arrays(dataset, "train")
    model = keras_model(dataset)
    weights = dict(enumerate(compute_class_weight("balanced", classes=np.unique(y), y=y)))
    for epoch in range(EPOCHS):
        order = distrain.epoch_order(len(y), seed=0, epoch=epoch).examples(range(len(y)))
        options = {"class_weight": weights, "batch_size": GLOBAL_BATCH, "shuffle": False, "verbose": 0}
        model.fit(x[order], y[order], **options)
    trained = last_weights(tmp_path / "run")
    for name, array in zip(sorted(trained), model.get_weights(), strict=True):
        np.testing.assert_allclose(trained[name], array, atol=1e-5)
    figures = evaluate_run(tmp_path / "run", tmp_path / "data")["classes"]
    x, y, _ = arrays(dataset, "test")
    found = precision_recall_fscore_support(y, model.predict(x, verbose=0).argmax(1), zero_division=0)
    assert list(figures) == list(dataset.classes)
    for name, values in zip(("precision", "recall", "f1", "support"), found, strict=True):
        assert [figure[name] for figure in figures.values()] == pytest.approx(values.tolist()), name


def test_classes_are_not_weighed_where_there_are_none(folder):
    config = TrainConfig(data=folder / "multilabel", run=folder / "refused", class_weight="balanced")
    with pytest.raises(ConfigurationError, match="sets of labels"):
        train(config)
