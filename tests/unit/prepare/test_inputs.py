"""Held-out rows, labels, headers, and inputs that `prepare` refuses."""

from __future__ import annotations

import numpy as np
import pytest
from prepared_data import Result, fails, rows, write_csv, write_folder

from distrain.config import PrepareConfig
from distrain.errors import ConfigurationError, DataError
from distrain.prepare.inputs import is_held_out
from distrain.text.readers.labels import LabelLearner
from distrain.text.vectorizers.load_vectorizer import load_vectorizer


def test_held_out_rows_are_a_share_by_seed(tmp_path):
    table = [(label, f"{text} row{number:05}") for number, (label, text) in enumerate(rows(1000))]
    train = write_csv(tmp_path / "a.csv", table)
    result = Result(train=train, out=tmp_path / "out", vectorizer="sequence", holdout=0.2, top_k=10_000)
    names = [word.decode() for word in load_vectorizer(result.dataset.vectorizer).words.to_list()]
    trained_on = {name for name in names if name.startswith("row")}
    num_test = result.dataset.parts["test"].num_rows
    assert len(trained_on) == result.dataset.parts["train"].num_rows == 1000 - num_test
    assert abs(num_test - 200) < 5 * np.sqrt(1000 * 0.2 * 0.8)
    held_out = [label for number, (label, _) in enumerate(table) if f"row{number:05}" not in trained_on]
    assert result.labels("test") == held_out
    # Test words that training never saw are unknown: nothing was learnt from held-out rows.
    assert result.ids("test").count(1) == num_test
    chosen = {seed: [is_held_out(index, 0.2, seed) for index in range(1000)] for seed in (0, 1)}
    assert 0 < np.sum(np.logical_and(*chosen.values())) < 100


def test_the_first_row_of_a_class_is_trained_on(tmp_path, caplog):
    table = [*rows(40), ("rare", "one of a kind")]
    result = Result(train=write_csv(tmp_path / "a.csv", table), out=tmp_path / "out", holdout=0.9)
    assert result.labels("train").count("rare") == 1
    assert "'rare'" in caplog.text
    assert set(result.labels("train")) == {"art", "rare", "sport", "tech"}


def test_integer_labels_sort_by_value(tmp_path):
    table = [(str(number % 12), f"word{number % 12} the") for number in range(48)]
    assert Result(train=write_csv(tmp_path / "a.csv", table), out=tmp_path / "out").dataset.classes == tuple(
        str(number) for number in range(12)
    )
    learner = LabelLearner()
    assert [learner.number(label) for label in ("10", "9", "b", "9")] == [0, 1, 2, 1]
    classes, order = learner.finish()
    assert classes.names == ("10", "9", "b")
    assert order.tolist() == [0, 1, 2]


def test_classes_that_differ_in_spelling_alone_are_named(tmp_path, caplog):
    labels = [
        "good",
        "Good",
        "1",
        "1.0",
        "true",
        "12345678901234567890",
        "12345678901234567891",
        "2",
        "caf\u00e9",
        "cafe\u0301",
    ]
    write_csv(tmp_path / "a.csv", [(label, "a few words") for label in labels for _ in range(4)])
    Result(train=tmp_path / "a.csv", test=tmp_path / "a.csv", out=tmp_path / "out")
    assert (
        "learnt as different classes: '1', '1.0', 'true'; 'Good', 'good'; 'cafe\u0301', 'caf\u00e9'. Give"
        in caplog.text
    )


def test_what_is_mended_is_counted(tmp_path, caplog):
    table = "".join(f"{label},{text}\n" for label, text in rows(30)).encode()
    (tmp_path / "a.csv").write_bytes(table + b"art,\xff\nart,\nart,\0\n")
    Result(train=tmp_path / "a.csv", test=tmp_path / "a.csv", out=tmp_path / "out")
    assert "1 line with bytes that are not UTF-8" in caplog.text
    assert "1 line with NUL bytes" in caplog.text
    assert "2 rows with an empty text" in caplog.text


def test_a_known_set(tmp_path, caplog):
    table = [(number % 2 + 1, f"{text}\\nnext \\tab") for number, (_, text) in enumerate(rows(40))]
    train = write_csv(tmp_path / "a.csv", [*table, ("Negative", "the")])
    result = Result(train=train, test=train, out=tmp_path / "out", dataset="yelp_polarity", vectorizer="sequence")
    assert result.dataset.classes == ("negative", "positive")
    assert result.labels("train")[:3] + result.labels("train")[-1:] == [
        "negative",
        "positive",
        "negative",
        "negative",
    ]
    words = load_vectorizer(result.dataset.vectorizer).words.to_list()
    assert b"next" in words
    assert b"nnext" not in words
    assert "41 rows; yelp_polarity as published has 560,000 to train" in caplog.text
    assert "38,000 to test" in caplog.text


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("9,text", ["row 31", "'9'", "outside 1..4"]),
        ("0,text", ["row 31", "'0'", "count from 1"]),
        ("cat,text", ["row 31", "'cat'", "neither"]),
        (",text", ["row 31", "missing"]),
    ],
)
def test_labels_that_a_known_set_does_not_have(tmp_path, row, words):
    lines = [f"{number % 4 + 1},{text}" for number, (_, text) in enumerate(rows(30))]
    (tmp_path / "a.csv").write_text("\n".join([*lines, row]))
    fails(DataError, *words, train=tmp_path / "a.csv", out=tmp_path / "out", dataset="ag_news")


def test_a_header_that_nobody_announced(tmp_path, caplog):
    train = write_csv(tmp_path / "a.csv", [("label", "text"), *rows(30)])
    fails(
        DataError,
        "row 1",
        "'label'",
        "If this row is a header",
        train=train,
        out=tmp_path / "o",
        dataset="ag_news",
    )
    Result(train=train, test=train, out=tmp_path / "out")
    assert "1 of 4 classes have only one training row: 'label'. If this row is a header" in caplog.text
    alone = write_csv(tmp_path / "b.csv", [("label", "text")])
    fails(DataError, "class 'label'", "If this row is a header", train=alone, out=tmp_path / "out2")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([("a", "x y z"), ("", "text")], ["row 2", "missing"]),
        ([("a", "some text"), ("a", "more text")], ["class 'a'", "nothing to tell apart"]),
        ([("a", ""), ("b", "? !"), ("b", "")], ["no text holds a word"]),
        ([("a" * 1001, "text")], ["row 1", "1,001 characters"]),
        ([("a", "the text"), ("b", "the text")], ["--holdout 0.1 of its 2 rows is none"]),
    ],
)
def test_rows_that_nothing_can_be_learnt_from(tmp_path, table, words):
    train = write_csv(tmp_path / "a.csv", table)
    fails(DataError, train, *words, train=train, out=tmp_path / "out")


def test_a_test_label_unseen_in_training(tmp_path):
    train = write_csv(tmp_path / "a.csv", rows(30, ("art", "sport")))
    test = write_csv(tmp_path / "b.csv", rows(30))
    fails(DataError, f"{test}, row 3", "'tech'", "training rows", train=train, test=test, out=tmp_path / "out")


def test_wrong_inputs_show_before_anything_is_made(tmp_path):
    train = write_csv(tmp_path / "a.csv", rows(30))
    fails(
        DataError,
        "missing.csv does not exist",
        train=train,
        test=tmp_path / "missing.csv",
        out=tmp_path / "out",
    )
    empty = write_csv(tmp_path / "b.csv", [])
    fails(DataError, "no rows", train=train, test=empty, out=tmp_path / "out")
    fails(ConfigurationError, "'nix'", train=train, label_column="nix", out=tmp_path / "out")
    folder = write_folder(tmp_path / "folder", rows(6))
    fails(ConfigurationError, "inside the input", train=folder, out=folder / "out")


@pytest.mark.parametrize(
    "settings",
    [
        {"dataset": "mnist"},
        {"text_columns": ()},
        {"text_columns": ("a", "")},
        {"text_columns": ("a", "b"), "label_column": "a"},
    ],
)
def test_settings_that_are_wrong(settings):
    with pytest.raises(ConfigurationError):
        PrepareConfig(train="a", out="b", **settings)
