"""Several labels, numbers to predict and weights: what `prepare` keeps, refuses and warns of."""

from __future__ import annotations

import csv
import json
import logging

import numpy as np
import pytest
from prepared_data import Result, fails, tree
from rich.console import Console
from sklearn.preprocessing import MultiLabelBinarizer
from threads_as_processes import on_all

from distrain.cluster.error_relay import ErrorRelay
from distrain.config import PrepareConfig
from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.sources import part_examples
from distrain.errors import ConfigurationError, DataError
from distrain.prepare import targets
from distrain.prepare.pipeline import prepare
from distrain.text.readers import blocks

LABELS = ["art", "sea", "war", "Über"]
WORDS = {"art": "paint brush", "sea": "ship wave", "war": "gun siege", "Über": "café schön"}


def labelled(count, seed=0):
    """Rows of 0 to 3 labels, whose words tell the labels; a weight; a number."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        labels = [str(label) for label in rng.permutation(LABELS)[: number % 4]]
        text = " ".join([*(word for label in labels for word in WORDS[label].split()), "the", "of", f"w{number % 7}"])
        rows.append((labels, text, float(rng.integers(0, 4)), float(rng.normal(50, 20))))
    return rows


def write_lines(path, rows):
    lines = [dict(zip(("label", "text", "weight", "target"), row, strict=True)) for row in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def write_separated(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "text", "weight", "target"])
        writer.writerows([" ; ".join(labels), *rest] for labels, *rest in rows)
    return path


def write_parquet(path, rows):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = zip(*rows, strict=True)
    parquet.write_table(pyarrow.table(dict(zip(("label", "text", "weight", "target"), columns, strict=True))), path)
    return path


def arrays(dataset, part):
    """Labels as 0 and 1 or as numbers, and weights, in the order of the rows."""
    examples = part_examples(dataset.parts[part], length=1)
    count = examples.num_examples
    _, labels, weights = examples.load(np.array([[0, count]]), np.arange(count))(0, count)
    return labels, weights


@pytest.mark.parametrize(
    ("write", "name", "settings"),
    [
        (write_lines, "jsonl", {}),
        (write_parquet, "parquet", {}),
        (write_separated, "csv", {"label_separator": ";", "text_columns": ("text",)}),
    ],
)
def test_labels_are_those_of_a_binarizer_in_each_format(tmp_path, write, name, settings):
    train, test = labelled(200), labelled(20, seed=1)
    files = {"train": write(tmp_path / f"a.{name}", train), "test": write(tmp_path / f"b.{name}", test)}
    result = Result(**files, out=tmp_path / "out", vectorizer="ngram", weight_column="weight", **settings)
    assert result.dataset.task == "multilabel"
    assert result.dataset.classes == tuple(sorted(LABELS))
    binarizer = MultiLabelBinarizer(classes=sorted(LABELS))
    for part, rows in (("train", train), ("test", test)):
        labels, weights = arrays(result.dataset, part)
        np.testing.assert_array_equal(labels, binarizer.fit_transform([row[0] for row in rows]))
        assert weights.tolist() == [row[2] for row in rows]


def on_threads(size, monkeypatch, **settings):
    """Prepare on `size` ranks, which are threads here, each of several blocks of a few rows."""
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 100)

    config = PrepareConfig(**settings)
    results = on_all(size, lambda process: prepare(config, console=Console(quiet=True), group=ErrorRelay(process)))
    assert results == [None] * size, results


@pytest.mark.parametrize("task", ["multilabel", "regression"])
@pytest.mark.parametrize("vectorizer", ["ngram", "sequence"])
def test_ranks_do_not_change_a_byte(tmp_path, monkeypatch, task, vectorizer):
    rows = labelled(360)
    column = "label" if task == "multilabel" else "target"
    settings = {"train": write_lines(tmp_path / "a.jsonl", rows), "label_column": column, "weight_column": "weight"}
    for size in (1, 2):
        on_threads(size, monkeypatch, **settings, out=tmp_path / str(size), task=task, vectorizer=vectorizer)
    assert tree(tmp_path / "1") == tree(tmp_path / "2")
    dataset = open_dataset(tmp_path / "1")
    assert dataset.parts["test"].num_rows > 20
    kept = np.concatenate([arrays(dataset, part)[1] for part in ("train", "test")])
    assert sorted(kept.tolist()) == sorted(row[2] for row in rows)


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_ranks_do_not_change_a_byte_of_many_groups(tmp_path, monkeypatch, task):
    rows = []
    for number, (_, text, *rest) in enumerate(labelled(900)):
        topic = f"t{number % 300}"
        rows.append((topic if task == "classification" else [topic, f"c{number % 7}"], f"{text} {topic}", *rest))
    path = write_lines(tmp_path / "a.jsonl", rows)
    for size in (1, 2):
        on_threads(size, monkeypatch, train=path, out=tmp_path / str(size), vectorizer="ngram", top_k=100)
    assert tree(tmp_path / "1") == tree(tmp_path / "2")


def test_the_first_row_of_each_label_is_never_held_out(tmp_path):
    rows = [([label], f"{label} text", 1.0, 1.0) for label in (*LABELS, *["war"] * 40)]
    path = write_lines(tmp_path / "a.jsonl", rows)
    result = Result(train=path, out=tmp_path / "out", vectorizer="sequence", holdout=0.95)
    labels, _ = arrays(result.dataset, "train")
    assert len(labels) < 20
    assert labels.any(axis=0).all()


def test_numbers_and_their_scale(tmp_path):
    train = labelled(50)
    path = write_lines(tmp_path / "a.jsonl", train)
    result = Result(train=path, test=path, out=tmp_path / "out", task="regression", label_column="target")
    labels, weights = arrays(result.dataset, "train")
    expected = np.float32([row[3] for row in train])
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels, expected)
    assert weights == ()
    assert result.dataset.classes == ()
    assert result.dataset.target_mean == pytest.approx(expected.mean(dtype=np.float64), rel=1e-12)
    assert result.dataset.target_deviation == pytest.approx(expected.std(dtype=np.float64), rel=1e-12)


def test_numbers_are_classes_unless_they_are_asked_for(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("".join(f"{number % 3},word{number % 3} the\n" for number in range(30)))
    assert Result(train=path, test=path, out=tmp_path / "out").dataset.classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("", "the target is missing"),
        ("nan", "'nan' is not a finite number"),
        ("inf", "'inf' is not"),
        ("1e39", "'1e39' is not"),
        ("1_000", "'1_000' is not"),
        ("1,5", "'1,5' is not"),
    ],
)
def test_targets_that_are_no_numbers(tmp_path, target, words):
    path = tmp_path / "a.csv"
    path.write_text(f'1.5,cheap thing\n2,dear thing\n"{target}",thing\n')
    fails(DataError, words, "a.csv, row 3", train=path, out=tmp_path / "out", task="regression")


@pytest.mark.parametrize("target", [None, float("nan"), float("inf"), "x", True, [1.0]])
def test_targets_of_records_that_are_no_numbers(tmp_path, target):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"label": label, "text": "a thing"}) + "\n" for label in (1, 2.5, target)))
    fails(DataError, "target", "a.jsonl, row 3", train=path, out=tmp_path / "out", task="regression")


@pytest.mark.parametrize("weight", ["", "-1", "nan", "inf", "much", "1e39"])
def test_weights_that_are_none(tmp_path, weight):
    path = tmp_path / "a.csv"
    path.write_text(f"label,text,w\na,one thing,1\nb,two things,{weight}\n")
    settings = {"train": path, "out": tmp_path / "out", "weight_column": "w"}
    fails(DataError, "the weight", "a.csv, row 3", **settings)
    path.write_text("label,text,w\na,one thing,0\nb,two things,0\n")
    fails(DataError, "all weights are 0", "--weight-column", **settings)
    (tmp_path / "b.csv").write_text("label,text,w\na,one thing,1\nb,two thing,2\n")
    settings["train"], test = tmp_path / "b.csv", path
    fails(DataError, "a.csv: all weights are 0", "nothing to test on", **settings, test=test)
    settings["train"] = path
    for number, kept in enumerate(("held-out", "training")):  # the hash of seed 0 holds out six of the rows
        weights = [int((row in (7, 14, 15, 20, 29, 30)) == bool(number)) for row in range(40)]
        lines = [f"{'ab'[row // 2 % 2]},red thing,{weight}\n" for row, weight in enumerate(weights)]
        path.write_text("label,text,w\n" + "".join(lines))
        fails(DataError, f"a.csv: the weights of all {kept} rows are 0", "--seed", **settings)
    path.write_text("label,text\na,one thing\nb,two things\n")
    fails(ConfigurationError, "no column 'w'", **settings)


def test_a_weight_is_no_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("label,text,w\n" + "a,one thing,77\nb,two things,88\n" * 5)
    result = Result(train=path, test=path, out=tmp_path / "out", weight_column="w", vectorizer="sequence")
    assert result.dataset.num_features == 2 + 4  # one, two, thing, things
    assert arrays(result.dataset, "train")[1].tolist() == [77, 88] * 5


def test_what_a_label_may_be(tmp_path):
    rows = [{"label": ["a", 2, True], "text": "one"}, {"label": "b", "text": "two"}, {"label": None, "text": "three"}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows * 3))
    result = Result(train=path, test=path, out=tmp_path / "out", vectorizer="sequence")
    assert result.dataset.classes == ("2", "a", "b", "true")
    assert arrays(result.dataset, "train")[0].tolist() == [[1, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]] * 3


@pytest.mark.parametrize(
    ("label", "words"),
    [(["a", ""], "a label in the list is empty"), ([["a"]], "holds a list"), (["a\x1fb"], "control character")],
)
def test_lists_that_are_refused(tmp_path, label, words):
    path = tmp_path / "a.jsonl"
    rows = [{"label": ["a"], "text": "one"}, {"label": label, "text": "two"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fails(DataError, words, "a.jsonl, row 2", train=path, out=tmp_path / "out")


def test_lists_are_no_classes(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", labelled(8))
    fails(DataError, "--task multilabel", "row 1", train=path, out=tmp_path / "out", task="classification")
    test = write_lines(tmp_path / "b.jsonl", [(["peace"], "text", 1.0, 1.0)])
    fails(DataError, "'peace' does not occur", "b.jsonl, row 1", train=path, test=test, out=tmp_path / "out")


def test_sets_of_labels_that_fill_the_memory(tmp_path, monkeypatch):
    path = write_lines(tmp_path / "a.jsonl", labelled(8))
    monkeypatch.setattr(targets, "_LABEL_BYTES", 2**28 // 5)  # room for five labels in all sets
    settings = {"train": path, "test": path, "out": tmp_path / "out"}
    fails(DataError, "over 3 sets of labels differ", "a.jsonl, row 4", "--memory-mib", **settings)


def test_a_name_that_two_columns_have(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("label,text,text\na,one,two\n")
    settings = {"train": path, "out": tmp_path / "out", "label_column": "label"}
    fails(ConfigurationError, "2 columns named 'text'", **settings)
    fails(ConfigurationError, "2 columns named 'text'", **settings, text_columns=("text",))


def test_rows_that_are_all_alike(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [(["war"], "a gun", 1.0, 5.0), (["war"], "the siege", 1.0, 5.0)] * 5)
    fails(DataError, "same labels", train=path, test=path, out=tmp_path / "out")
    settings = {"task": "regression", "label_column": "target"}
    fails(DataError, "all targets are 5", train=path, test=path, out=tmp_path / "out", **settings)


def test_rare_and_missing_labels_are_warned_of(tmp_path, caplog):
    rows = [(["war"], "gun siege", 1.0, 1.0), (["sea", "war"], "ship gun", 1.0, 1.0)] * 300
    rows += [(["art"], "paint", 1.0, 1.0)] * 2 + [(["Über"], "café", 1.0, 1.0), ([], "nothing", 1.0, 1.0)]
    path = write_lines(tmp_path / "a.jsonl", rows)
    with caplog.at_level(logging.WARNING):
        Result(train=path, test=path, out=tmp_path / "out")
    assert "1 of 4 labels have only one training row: 'Über'" in caplog.text
    assert "1 of 4 labels have few rows: 'art' (2, 0.33%)" in caplog.text
    assert "--class-weight" not in caplog.text
    assert "1 of 604 training row has no label" in caplog.text


def test_rare_classes_of_weighted_rows_get_no_other_weights(tmp_path, caplog):
    path = tmp_path / "a.csv"
    path.write_text("label,text,w\n" + "a,one thing,1\n" * 500 + "b,two things,1\n" * 3)
    with caplog.at_level(logging.WARNING):
        Result(train=path, test=path, out=tmp_path / "out", weight_column="w")
    assert "1 of 2 classes have few rows: 'b' (3, 0.60%)" in caplog.text
    assert "--class-weight" not in caplog.text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"label_separator": ";", "task": "regression"}, "--task"),
        ({"label_separator": ";", "dataset": "ag_news"}, "--label-separator"),
        ({"task": "regression", "dataset": "ag_news"}, "--task"),
        ({"label_separator": ""}, "--label-separator"),
        ({"weight_column": "w", "text_columns": ("w",)}, "--weight-column"),
        ({"weight_column": "w", "label_column": "w"}, "--weight-column"),
    ],
)
def test_settings_that_contradict(tmp_path, settings, words):
    fails(ConfigurationError, words, train=tmp_path / "a.csv", out=tmp_path / "out", **settings)
