"""`prepare --tokens char`: the characters of the text as a file holds it, in every format."""

from __future__ import annotations

import json

import numpy as np
import pytest
from prepared_data import Result, fails, tree, write_csv
from rich.console import Console
from sklearn.feature_extraction.text import TfidfVectorizer
from threads_as_processes import on_all

from distrain.cluster.error_relay import ErrorRelay
from distrain.config import PrepareConfig
from distrain.errors import DataError
from distrain.prepare.pipeline import prepare
from distrain.text.vectorizers.load_vectorizer import load_vectorizer

TEXTS = [
    'say "hi", twice',
    "今天很好。",
    "今天太差。",
    "two\nlines",
    "a,b",
    "  spaces  ",
    'say "no"',
    "很好很好",
    "太差了",
]
TABLE = [(str(number % 2), TEXTS[number % len(TEXTS)]) for number in range(60)]


def test_the_values_are_those_that_scikit_learn_computes(tmp_path):
    train = write_csv(tmp_path / "a.csv", TABLE)
    result = Result(train=train, test=train, out=tmp_path / "out", tokens="char", vectorizer="ngram")
    vectorizer = load_vectorizer(result.dataset.vectorizer)
    texts = [text for _, text in TABLE]
    oracle = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), min_df=2, strip_accents="unicode")
    expected = oracle.fit_transform(texts).toarray()
    assert vectorizer.feature_names() == oracle.get_feature_names_out().tolist()
    for part in ("train", "test"):
        rows = result.dataset.parts[part].read(0, len(TABLE))
        found = np.zeros_like(expected)
        for row in range(len(TABLE)):
            span = slice(rows.row_splits[row], rows.row_splits[row + 1])
            found[row, rows.columns[span]] = rows.values[span]
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("vectorizer", ["ngram", "sequence"])
def test_formats_and_processes_give_the_same_bytes(tmp_path, vectorizer):
    settings = {"tokens": "char", "vectorizer": vectorizer}
    Result(train=write_csv(tmp_path / "a.csv", TABLE), out=tmp_path / "csv", **settings)
    lines = tmp_path / "a.jsonl"
    lines.write_text("".join(json.dumps({"label": label, "text": text}) + "\n" for label, text in TABLE))
    Result(train=lines, out=tmp_path / "jsonl", **settings)
    assert tree(tmp_path / "jsonl") == tree(tmp_path / "csv")
    config = PrepareConfig(train=[lines], out=tmp_path / "ranks", **settings)
    results = on_all(3, lambda process: prepare(config, console=Console(quiet=True), group=ErrorRelay(process)))
    assert results == [None] * 3, results
    assert tree(tmp_path / "ranks") == tree(tmp_path / "csv")


def test_no_warning_and_the_ratio_of_characters(tmp_path, caplog):
    table = [(str(number % 2), f"今天我们这个老板东西价格服务{'喜坏'[number % 2]}") for number in range(60)]
    result = Result(train=write_csv(tmp_path / "a.csv", table), out=tmp_path / "out", tokens="char")
    assert "rows / 15 characters per row" in result.output
    assert not caplog.records


def test_text_without_characters(tmp_path):
    train = write_csv(tmp_path / "a.csv", [("a", ""), ("b", ""), ("a", "")])
    fails(DataError, "no text holds a character", train=train, test=train, out=tmp_path / "out", tokens="char")
