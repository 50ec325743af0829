"""N-gram features against scikit-learn's pipeline; ties, memory, files."""

# ruff: noqa: RUF001  (letters that look alike are what is tested)

from __future__ import annotations

import csv
import itertools
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest, f_classif

from distrain.errors import DataError
from distrain.text.readers.texts import Texts
from distrain.text.vectorizers import ngrams
from distrain.text.vectorizers.f_test import best, f_scores, least_rows
from distrain.text.vectorizers.load_vectorizer import load_vectorizer
from distrain.text.vectorizers.ngrams import learn_ngrams
from distrain.text.vectorizers.token_store import TokenStore

SHARED = Path(__file__).parents[5] / "shared" / "data"


def learn(folder, texts, labels, *, memory_bytes=None, **settings):
    folder.mkdir(exist_ok=True)
    store = TokenStore(folder, memory_mib=64)
    store.memory_bytes = memory_bytes or store.memory_bytes
    for start in range(0, len(texts), 1000):
        store.add(Texts.of(texts[start : start + 1000]), labels[start : start + 1000])
    store.finish()
    vectorizer, rows = learn_ngrams(store, **settings)
    return vectorizer, list(rows)


def matrix(rows, num_features):
    return scipy.sparse.vstack(
        [scipy.sparse.csr_array((r.values, r.columns, r.row_splits), (r.num_rows, num_features)) for r in rows]
    )


def oracle(texts, labels, top_k):
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, strip_accents="unicode", decode_error="replace")
    values = vectorizer.fit_transform(texts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of constant features
        chosen = SelectKBest(f_classif, k=min(top_k, values.shape[1])).fit(values, labels)
    return vectorizer, chosen, values


def assert_equals_oracle(folder, texts, labels, test_texts, top_k):
    vectorizer, rows = learn(folder, texts, labels, top_k=top_k)
    tfidf, chosen, values = oracle(texts, labels, top_k)
    names, scores = tfidf.get_feature_names_out(), chosen.scores_
    expected = set(names[chosen.get_support()])
    ours = vectorizer.feature_names()
    assert ours == sorted(ours)
    assert len(ours) == len(expected)
    # Only n-grams whose score is the score at the cut may differ.
    score_of = dict(zip(names, scores, strict=True))
    cut = min(score_of[name] for name in expected) if not np.isnan(scores).any() else None
    for name in expected ^ set(ours):
        assert cut is not None
        assert score_of[name] == pytest.approx(cut, rel=1e-9)
    columns = [tfidf.vocabulary_[name] for name in ours]
    for got, want in ((rows, values), ([vectorizer.transform(test_texts)], tfidf.transform(test_texts))):
        assert all(r.values.dtype == np.float32 and r.columns.dtype == np.int32 for r in got)
        assert all(np.all(np.diff(r.columns[a:b]) > 0) for r in got for a, b in itertools.pairwise(r.row_splits))
        difference = abs(matrix(got, len(ours)) - want[:, columns])
        assert difference.max() < 1e-6
        assert matrix(got, len(ours)).nnz == want[:, columns].nnz
    assert np.concatenate([r.labels for r in rows]).tolist() == list(labels)
    return len(expected ^ set(ours))


@pytest.mark.parametrize("name", ["ag_news", "dbpedia"])
def test_real_data_has_the_features_and_values_of_scikit_learn(tmp_path, name):
    if not (SHARED / name).is_dir():
        pytest.skip(f"no data at {SHARED / name}")

    def read(part):
        with (SHARED / name / f"{part}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        return [" ".join(row[1:]) for row in rows], np.array([int(row[0]) - 1 for row in rows])

    texts, labels = read("train")
    assert assert_equals_oracle(tmp_path, texts, labels, read("test")[0], 20_000) == 0


MIXED = [
    *("the", "The", "THE", "café", "Cafe\u0301", "naïve", "ΣΟΦΟΣ", "σοφος", "ΣΟΦΟΣ.", "İzmir", "izmir", "straße"),
    *("ﬁne", "fine", "１２３", "123", "한국", "हिन्दी", "中文", "中文字", "x²y", "😀ok", "ok\ufffdok", "a\ud800b"),
    *("under_score", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "don't", "e-mail"),
    *("½", "Ⅷ", "ℂx"),
]


def mixed_texts(rows, classes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    weights = rng.dirichlet(np.ones(len(MIXED)), classes)
    texts = [" ".join(rng.choice(MIXED, rng.integers(0, 25), p=weights[label])) for label in labels]
    return texts, labels


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("rows", "classes", "top_k"), [(400, 4, 100), (60, 2, 30), (25, 7, 15), (300, 3, 100_000)])
def test_mixed_scripts_have_the_features_and_values_of_scikit_learn(tmp_path, rows, classes, top_k, seed):
    texts, labels = mixed_texts(rows, classes, seed)
    test_texts, _ = mixed_texts(50, classes, seed + 100)
    assert_equals_oracle(tmp_path, texts, labels, [*test_texts, "", "unheard words", "the"], top_k)


def test_degenerate_classes_are_treated_as_in_scikit_learn(tmp_path):
    texts = ["same words here"] * 3 + ["other words there"] * 3 + ["", "same other words"]
    for number, labels in enumerate(([0, 0, 0, 1, 1, 1, 2, 3], [0, 0, 0, 5, 5, 5, 5, 0], [0, 1, 2, 3, 4, 5, 6, 7])):
        assert_equals_oracle(tmp_path / str(number), texts, np.array(labels), ["same words", ""], 4)


def test_of_equal_scores_the_alphabetically_later_is_kept(tmp_path):
    # Two pairs of n-grams that mirror each other: "aa"/"bb" mark one class, "yy"/"zz" the other, all alike.
    texts = ["aa", "bb", "aa", "bb", "yy", "zz", "yy", "zz"]
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    for top_k, kept in ((1, ["zz"]), (2, ["yy", "zz"]), (3, ["bb", "yy", "zz"])):
        vectorizer, _ = learn(tmp_path / str(top_k), texts, labels, top_k=top_k)
        assert vectorizer.feature_names() == kept


def test_scores_that_differ_by_rounding_are_equal():
    keys = np.arange(4)
    assert best(np.array([1.0, 1.0 + 1e-15, 1.0 - 1e-15, 0.5]), keys, 1).tolist() == [2]
    assert best(np.array([1.0, 1.0 + 1e-15, 1.0 - 1e-15, 0.5]), keys[::-1], 1).tolist() == [0]
    assert best(np.array([1.0, 1.0 + 1e-9, 1.0]), keys[:3], 1).tolist() == [1]
    assert best(np.array([np.nan, 0.0, np.inf, np.nan]), keys, 3).tolist() == [1, 2, 3]


def test_f_scores_are_those_of_a_dense_table():
    rng = np.random.default_rng(0)
    values, labels = rng.random((50, 6)), rng.integers(0, 3, 50)
    sums = np.stack([[values[labels == k].sum(0), (values[labels == k] ** 2).sum(0)] for k in range(3)]).transpose(
        2, 0, 1
    )
    assert f_scores(sums, np.bincount(labels)) == pytest.approx(f_classif(values, labels)[0], rel=1e-12)
    assert np.array_equal(f_scores(1024 * sums, np.bincount(labels), scale=1024), f_scores(sums, np.bincount(labels)))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0.001, 1)), min_size=1, max_size=12),
    st.tuples(*3 * [st.integers(0, 30)]),
)
def test_a_feature_is_in_as_many_rows_as_its_score_takes(entries, more_rows):
    sums, class_sizes = np.zeros((1, 3, 2)), np.array(more_rows) + 2
    for label, value in entries:
        sums[0, label] += value, value * value
        class_sizes[label] += 1
    assert least_rows(f_scores(sums, class_sizes)[0], class_sizes) <= len(entries)


def test_the_least_rows_of_a_score():
    # All squares between the classes, in a class of 100 of 1,000: r = n / 100, and the score r / (1 - r) x 998.
    assert least_rows(998 / 9, np.array([100, 900])) == 9  # r = 1/10, less what rounding may be
    assert least_rows(998.1 / 9, np.array([100, 900])) == 10
    for unknown in (np.nan, np.inf, 0.0, -1e-9):
        assert least_rows(unknown, np.array([100, 900])) == 0


def test_what_cannot_be_chosen_is_not_tested(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 2000)
    numbers = rng.integers(0, 400, (2000, 2)).tolist()
    texts = [f"{'good' if label else 'bad'} w{a} w{b}" for label, (a, b) in zip(labels, numbers, strict=True)]
    doings = []
    for enough in (2**20, 100):
        monkeypatch.setattr(ngrams, "_ENOUGH", enough)
        doings.append([])
        vectorizer, _ = learn(
            tmp_path / str(enough), texts, labels, top_k=2, progress=lambda doing, share: doings[-1].append(doing)
        )
        assert len(vectorizer.keys) > 900
        assert vectorizer.feature_names() == ["bad", "good"]
    assert "testing n-grams" not in doings[0] + doings[1]


def test_little_memory_spills_and_changes_nothing(tmp_path):
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in rng.integers(0, 3000, 40) ** 2 // 3000) for _ in range(3000)]
    labels = rng.integers(0, 5, 3000)
    walks = {"plenty": [], "little": []}
    learnt = {}
    for name, memory_bytes in (("plenty", None), ("little", 2**17)):
        learnt[name] = learn(
            tmp_path / name,
            texts,
            labels,
            memory_bytes=memory_bytes,
            top_k=500,
            progress=lambda doing, share, name=name: walks[name].append((doing, share)),
        )
    assert not any((tmp_path / "plenty").glob("words-0-*.units"))
    assert len(list((tmp_path / "little").glob("words-0-*.units"))) > 2
    partings = {name: [doing for doing, _ in walk].count("parting pairs of words") for name, walk in walks.items()}
    assert partings["plenty"] <= 3
    assert partings["little"] > 20
    assert walks["plenty"].count(("testing n-grams", 1.0)) == 0
    assert walks["little"].count(("testing n-grams", 1.0)) > 4
    (plenty, plenty_rows), (little, little_rows) = learnt["plenty"], learnt["little"]
    assert len(plenty.keys) > 5_000
    for field in ("keys", "row_counts", "chosen"):
        assert np.array_equal(getattr(plenty, field), getattr(little, field))
    assert plenty.words.to_list() == little.words.to_list()
    for plenty_row, little_row in zip(plenty_rows, little_rows, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(plenty_row, little_row, strict=True))


def test_min_df_counts_rows_not_occurrences(tmp_path):
    texts = ["once once once once", "pair one pair one", "both here", "both here"]
    vectorizer, _ = learn(tmp_path / "two", texts, np.array([0, 0, 1, 1]), top_k=100)
    assert vectorizer.feature_names() == ["both", "both here", "here"]
    vectorizer, _ = learn(tmp_path / "one", texts, np.array([0, 0, 1, 1]), top_k=100, min_df=1)
    assert {"once once", "one pair", "pair one"} < set(vectorizer.feature_names())


def test_training_rows_are_what_transform_makes_of_their_text(tmp_path):
    texts, labels = mixed_texts(300, 3, 9)
    vectorizer, rows = learn(tmp_path, texts, labels, top_k=50)
    transformed = vectorizer.transform(texts)
    assert np.array_equal(np.concatenate([r.values for r in rows]), transformed.values)
    assert np.array_equal(np.concatenate([r.columns for r in rows]), transformed.columns)
    assert transformed.labels.tolist() == [0] * 300
    assert vectorizer.transform([]).num_rows == 0


@pytest.mark.parametrize("texts", [["", " . !", "a b c"], ["", ""], ["one", "two", "three"]])
def test_nothing_to_learn_is_an_error_of_the_data(tmp_path, texts):
    with pytest.raises(DataError, match=r"Check the text columns") as raised:
        learn(tmp_path, texts, np.zeros(len(texts), int), top_k=10)
    assert raised.value.exit_code == 3


@pytest.fixture
def saved(tmp_path):
    texts, labels = mixed_texts(200, 3, 1)
    vectorizer, _ = learn(tmp_path / "scratch", texts, labels, top_k=40)
    vectorizer.save(tmp_path / "vectorizer")
    return vectorizer, tmp_path / "vectorizer"


def test_a_saved_vectorizer_does_the_same(saved):
    vectorizer, folder = saved
    loaded = load_vectorizer(folder)
    texts, _ = mixed_texts(100, 3, 2)
    assert loaded.feature_names() == vectorizer.feature_names()
    assert loaded.num_features == 40
    for ours, theirs in zip(vectorizer.transform(texts), loaded.transform(texts), strict=True):
        assert np.array_equal(ours, theirs)


def test_learning_twice_writes_the_same_bytes(saved, tmp_path):
    texts, labels = mixed_texts(200, 3, 1)
    vectorizer, _ = learn(tmp_path / "again", texts, labels, top_k=40)
    vectorizer.save(tmp_path / "other")
    files = sorted(path.name for path in saved[1].iterdir())
    assert files == ["vectorizer.json", "vectorizer.safetensors"]
    for name in files:
        assert (saved[1] / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def _set(name, place, value):
    def change(arrays):
        arrays[name][place] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.pop("keys"),
        lambda arrays: arrays.update(keys=arrays["keys"].astype(np.int32)),
        lambda arrays: arrays.update(keys=arrays["keys"][:, None]),
        lambda arrays: arrays.update(keys=arrays["keys"][:0]),
        lambda arrays: arrays.update(row_counts=arrays["row_counts"][:-1]),
        lambda arrays: arrays.update(chosen=arrays["chosen"][:-1]),
        _set("keys", -1, 2**62),
        _set("keys", -1, (2**31 - 1) << 32),
        _set("keys", 0, -1),
        _set("keys", 1, 0xFFFFFFFF),
        _set("row_counts", 0, 0),
        _set("row_counts", 0, 201),
        _set("chosen", -1, 2**40),
        _set("chosen", 0, -1),
        _set("word_ends", -1, 2**40),
        _set("word_ends", 0, -5),
        _set("word_ends", 0, 10**6),
        _set("word_pool", 0, 0xFF),
    ],
)
def test_arrays_out_of_range_are_refused(saved, change):
    path = saved[1] / "vectorizer.safetensors"
    arrays = {name: np.array(array) for name, array in load_file(path).items()}
    change(arrays)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    with pytest.raises(DataError, match=r"vectorizer\.safetensors.*prepare the data again"):
        load_vectorizer(saved[1])


@pytest.mark.parametrize(
    ("key", "value"),
    [("format", "x"), ("version", 2), ("kind", "other"), ("num_rows", -1), ("num_rows", True), ("num_features", 3)],
)
def test_headers_that_lie_are_refused(saved, key, value):
    path = saved[1] / "vectorizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(DataError, match="prepare the data again"):
        load_vectorizer(saved[1])


@pytest.mark.parametrize("name", ["vectorizer.json", "vectorizer.safetensors"])
@pytest.mark.parametrize("contents", [None, b"", b"[" * 100_000, b"\xff\xfe", b"{}", b"[1]", b"\xff" * 64])
def test_missing_and_damaged_files_are_refused(saved, name, contents):
    path = saved[1] / name
    path.unlink()
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(DataError):
        load_vectorizer(saved[1])


def test_a_truncated_file_is_refused(saved):
    path = saved[1] / "vectorizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError):
        load_vectorizer(saved[1])
