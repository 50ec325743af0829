"""`prepare` end to end on small data: formats, bytes, and printed lines."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from prepared_data import Result, labels_of, rows, tree, write_csv, write_folder

from distrain.data.prepared.dataset_index import open_dataset
from distrain.text.vectorizers.load_vectorizer import load_vectorizer

DATA = Path(__file__).parents[2] / "data"


def write_json_lines(path, table):
    path.write_text("".join(json.dumps({"label": label, "text": text}) + "\n" for label, text in table))
    return path


def write_tsv_gz(path, table):
    path.write_bytes(gzip.compress("".join(f"{label}\t{text}\n" for label, text in table).encode()))
    return path


def write_header_csv(path, table):
    return write_csv(path, [("id", "text", "label"), *((n, text, label) for n, (label, text) in enumerate(table))])


def write_parquet(path, table):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    labels, texts = zip(*table, strict=True)
    parquet.write_table(pyarrow.table({"label": labels, "text": texts}), path)
    return path


@pytest.mark.parametrize(
    ("write", "name", "settings"),
    [
        (write_csv, "a.csv", {}),
        (write_header_csv, "a.csv", {"label_column": "label", "text_columns": ("text",)}),
        (write_tsv_gz, "a.tsv.gz", {}),
        (write_json_lines, "a.jsonl", {}),
        (write_parquet, "a.parquet", {}),
        (write_folder, "folder", {}),
    ],
)
@pytest.mark.parametrize("vectorizer", ["ngram", "sequence"])
def test_every_format_gives_the_same_data(tmp_path, write, name, settings, vectorizer):
    train, test = rows(60), rows(30)[:20]
    if name == "folder":  # its rows come sorted by class
        train, test = sorted(train, key=lambda row: row[0]), sorted(test, key=lambda row: row[0])
    for part, table in (("train", train), ("test", test)):
        (tmp_path / part).mkdir()
        write(tmp_path / part / name, table)
    result = Result(
        train=tmp_path / "train" / name,
        test=tmp_path / "test" / name,
        out=tmp_path / "out",
        vectorizer=vectorizer,
        **settings,
    )
    assert result.dataset.classes == ("art", "sport", "tech")
    assert result.labels("train") == [label for label, _ in train]
    assert result.labels("test") == [label for label, _ in test]
    # The saved vectorizer gives both parts again from the text.
    saved = load_vectorizer(result.dataset.vectorizer)
    assert (saved.kind, saved.num_features) == (vectorizer, result.dataset.num_features)
    for part, table in (("train", train), ("test", test)):
        stored, again = (
            result.dataset.parts[part].read(0, len(table)),
            saved.transform([text for _, text in table]),
        )
        np.testing.assert_array_equal(stored.row_splits, again.row_splits)
        np.testing.assert_array_equal(stored.columns, again.columns)
        if vectorizer == "ngram":
            np.testing.assert_allclose(stored.values, again.values, rtol=1e-6)
    if vectorizer == "sequence":
        assert result.ids("train")[:6] == [2 + by_frequency(train).index(word) for word in plain(train[0][1]).split()]


def plain(text):
    return text.replace("é", "e")


def by_frequency(table):
    words = [word for _, text in table for word in plain(text).split()]
    return sorted(set(words), key=lambda word: (-words.count(word), word))


def test_two_runs_give_the_same_bytes_and_replace(tmp_path):
    train = write_csv(tmp_path / "a.csv", rows(50))
    Result(train=train, out=tmp_path / "one")
    Result(train=train, out=tmp_path / "two")
    first = tree(tmp_path / "one")
    assert tree(tmp_path / "two") == first
    assert not any(str(tmp_path).encode() in content for content in first.values())
    Result(train=train, out=tmp_path / "two", seed=1, vectorizer="sequence")
    assert open_dataset(tmp_path / "two").kind == "sequence"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "one", "two"]


def test_auto_says_what_it_chose_and_why(tmp_path):
    train = write_csv(tmp_path / "a.csv", rows(90))
    result = Result(train=train, test=train, out=tmp_path / "out")
    assert "auto: 90 rows / 6 words per row = 15 < 1,500: n-grams" in result.output
    many = write_csv(tmp_path / "b.csv", [(str(number % 2), f"word{number % 5}") for number in range(1500)])
    result = Result(train=many, test=many, out=tmp_path / "out")
    assert result.dataset.kind == "sequence"
    assert "auto: 1,500 rows / 1 words per row = 1,500 >= 1,500: sequences" in result.output
    assert max(map(len, result.output.splitlines())) <= 80


@pytest.mark.parametrize(
    ("name", "dataset", "num_train", "num_test"),
    [("four_topics", "ag_news", 400, 100), ("fourteen_rooms", "dbpedia", 364, 84)],
)
def test_real_text(tmp_path, name, dataset, num_train, num_test):
    folder = DATA / name
    result = Result(
        train=folder / "train.csv", test=folder / "test.csv", out=tmp_path / "out", dataset=dataset, top_k=500
    )
    parts = result.dataset.parts
    assert (parts["train"].num_rows, parts["test"].num_rows) == (num_train, num_test)
    for part in ("train", "test"):
        with (folder / f"{part}.csv").open(newline="", encoding="utf-8") as file:
            assert [int(row[0]) - 1 for row in csv.reader(file)] == labels_of(parts[part]).tolist()
    assert result.dataset.num_features == 500
    assert re.search(rf"auto: {num_train:,} rows .*: n-grams", result.output)


def test_digest_covers_the_vectorizer(tmp_path):
    result = Result(train=write_csv(tmp_path / "a.csv", rows(40)), out=tmp_path / "out")
    index = json.loads((tmp_path / "out" / "dataset.json").read_text())
    files = sorted(result.dataset.vectorizer.iterdir())
    assert (
        list(index["vectorizer_files"])
        == [path.name for path in files]
        == ["vectorizer.json", "vectorizer.safetensors"]
    )
    for path in files:
        content = path.read_bytes()
        record = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        assert index["vectorizer_files"][path.name] == record


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ([1990, 10], ["1 of 2 classes have few rows: '1' (10, 0.50%)", "--class-weight balanced"]),
        ([1980, 20], []),
        ([3000, 2, 3], ["2 of 3 classes have few rows: '1' (2, 0.07%), '2' (3, 0.10%)"]),
        ([30] * 120, []),  # less than 1% each, as 120 equal classes have
        ([100, 100, 1], []),  # another warning tells of a single row
    ],
)
def test_rare_classes_are_told_with_a_cure(tmp_path, caplog, sizes, told):
    table = [(str(label), "some text here") for label, size in enumerate(sizes) for _ in range(size)]
    train = write_csv(tmp_path / "a.csv", table)
    Result(train=train, test=train, out=tmp_path / "out", vectorizer="sequence")
    assert all(words in caplog.text for words in told)
    assert ("few rows" in caplog.text) == bool(told)
