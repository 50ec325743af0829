"""Synthetic text: its format as the csv module reads it, its statistics, and the accuracy of a linear model."""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from distrain.errors import ConfigurationError
from distrain.text.synthetic import corpus as synth
from distrain.text.synthetic.corpus import Written, write_synthetic


def read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="ascii") as file:
        return list(csv.reader(file, strict=True))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write_synthetic(tmp_path_factory.mktemp("synth"), rows=2000, test_rows=1000)


@pytest.fixture(scope="module")
def corpus(written: Written) -> tuple[list[list[str]], list[list[str]]]:
    return read_rows(written.train), read_rows(written.test)


def test_rows_are_class_title_text(corpus):
    train, test = corpus
    assert (len(train), len(test)) == (2000, 1000)
    for row in train + test:
        label, title, text = row
        assert label in {"1", "2", "3", "4"}
        assert title == title.strip() != ""
        assert text == text.strip() != ""
        assert "  " not in text


def test_every_field_is_quoted_as_the_csv_module_quotes(tmp_path, written, corpus):
    again = tmp_path / "again.csv"
    with again.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(corpus[0])
    assert again.read_bytes() == written.train.read_bytes()


def test_counts_and_sizes_are_right(tmp_path):
    written = write_synthetic(tmp_path / "a" / "b", rows=505)
    assert (written.rows, written.test_rows) == (505, 50)
    assert len(read_rows(written.test)) == 50
    assert written.num_bytes == written.train.stat().st_size + written.test.stat().st_size


@pytest.mark.parametrize("classes", [2, 7, 1000])
def test_every_class_occurs_even_with_one_row_each(tmp_path, classes):
    written = write_synthetic(tmp_path, rows=classes, classes=classes, test_rows=classes)
    for path in (written.train, written.test):
        labels = sorted(int(row[0]) for row in read_rows(path))
        assert labels == list(range(1, classes + 1))


def test_the_same_settings_give_the_same_bytes(tmp_path):
    first = write_synthetic(tmp_path / "first", rows=500, seed=7)
    second = write_synthetic(tmp_path / "second", rows=500, seed=7)
    other = write_synthetic(tmp_path / "other", rows=500, seed=8)
    assert digest(first.train) == digest(second.train)
    assert digest(first.test) == digest(second.test)
    assert len({digest(path) for path in (first.train, first.test, other.train, other.test)}) == 4


def test_bytes_do_not_depend_on_the_block_size(tmp_path, monkeypatch, written):
    monkeypatch.setattr(synth, "BLOCK_BYTES", 1)
    assert digest(write_synthetic(tmp_path, rows=2000).train) == digest(written.train)


def test_no_row_occurs_twice(corpus):
    train, test = corpus
    assert len({row[2] for row in train + test}) == len(train) + len(test)


def test_lengths_vary_around_the_mean_with_a_long_tail(corpus):
    lengths = np.array([len(f"{title} {text}".split()) for _, title, text in corpus[0]])
    assert lengths.mean() == pytest.approx(40, rel=0.03)
    assert np.log(lengths).std() == pytest.approx(synth.LENGTH_SPREAD, rel=0.1)
    assert np.median(lengths) < lengths.mean() < lengths.max() / 3


@pytest.mark.parametrize("words_per_row", [2, 700])
def test_words_per_row_is_followed(tmp_path, words_per_row):
    written = write_synthetic(tmp_path, rows=400, words_per_row=words_per_row)
    lengths = [len(f"{title} {text}".split()) for _, title, text in read_rows(written.train)]
    assert min(lengths) >= 2
    assert np.mean(lengths) == pytest.approx(words_per_row, rel=0.25)


def test_word_frequencies_follow_zipfs_law(corpus):
    words = Counter(" ".join(text for _, _, text in corpus[0]).lower().replace(".", "").split())
    counts = np.array(sorted(words.values(), reverse=True)[:200])
    slope = np.polyfit(np.log(np.arange(1, 201)), np.log(counts), 1)[0]
    assert slope == pytest.approx(-1, abs=0.15)
    assert len(words) > 5000


def test_a_linear_model_learns_but_not_all_and_bigrams_help(corpus):
    train, test = ([" ".join(row[1:]) for row in part] for part in corpus)
    train_labels, test_labels = ([row[0] for row in part] for part in corpus)
    accuracy = {}
    for longest in (1, 2):
        vectorizer = TfidfVectorizer(ngram_range=(1, longest), min_df=3)
        features = vectorizer.fit_transform(train)
        model = LinearSVC(C=0.1).fit(features, train_labels)
        accuracy[longest] = model.score(vectorizer.transform(test), test_labels)
    assert accuracy[1] > 0.6
    assert 0.7 < accuracy[2] < 0.97
    assert accuracy[2] > accuracy[1] + 0.03


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"rows": 3}, "--rows is 3"),
        ({"rows": 0}, "--rows is 0"),
        ({"rows": 100, "test_rows": 3}, "--test-rows is 3"),
        ({"rows": 100, "classes": 1}, "--classes is 1"),
        ({"rows": 10**6, "classes": 1001}, "--classes is 1001"),
        ({"rows": 100, "words_per_row": 1}, "--words-per-row is 1"),
        ({"rows": 100, "seed": -1}, "--seed is -1"),
    ],
)
def test_settings_out_of_range_are_named_and_nothing_is_written(tmp_path, settings, named):
    with pytest.raises(ConfigurationError, match=named):
        write_synthetic(tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_out_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ConfigurationError, match=r"--out .*out cannot be written"):
        write_synthetic(tmp_path / "out", rows=100)


def test_a_write_that_breaks_off_keeps_the_old_file(tmp_path, monkeypatch, written):
    for path in (written.train, written.test):
        shutil.copy(path, tmp_path)

    def break_off(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(synth, "fill_block", break_off)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path, rows=200)
    assert (tmp_path / "train.csv").read_bytes() == written.train.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.csv", "train.csv"]
