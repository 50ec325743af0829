"""N-gram features and values against scikit-learn's pipeline."""

from __future__ import annotations

import csv
import itertools
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from ngram_learning import learn, mixed_texts
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest, f_classif

DATA = Path(__file__).parents[3] / "data"


def matrix(rows, num_features):
    return scipy.sparse.vstack(
        [scipy.sparse.csr_array((r.values, r.columns, r.row_splits), (r.num_rows, num_features)) for r in rows]
    )


def oracle(texts, labels, top_k, tokens):
    vectorizer = TfidfVectorizer(analyzer=tokens, ngram_range=(1, 2), min_df=2, strip_accents="unicode")
    values = vectorizer.fit_transform(texts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of constant features
        chosen = SelectKBest(f_classif, k=min(top_k, values.shape[1])).fit(values, labels)
    return vectorizer, chosen, values


def assert_equals_oracle(folder, texts, labels, test_texts, top_k, tokens="word"):
    vectorizer, rows = learn(folder, texts, labels, top_k=top_k, tokens=tokens)
    if tokens == "char":  # a lone surrogate counts as U+FFFD, since UTF-8 cannot hold it
        texts, test_texts = (
            [re.sub("[\ud800-\udfff]", "\ufffd", text) for text in some] for some in (texts, test_texts)
        )
    tfidf, chosen, values = oracle(texts, labels, top_k, tokens)
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


@pytest.mark.parametrize("name", ["four_topics", "fourteen_rooms"])
@pytest.mark.parametrize("top_k", [300, 20_000])
@pytest.mark.parametrize("tokens", ["word", "char"])
def test_real_text_has_the_features_and_values_of_scikit_learn(tmp_path, name, top_k, tokens):
    def read(part):
        with (DATA / name / f"{part}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        return [" ".join(row[1:]) for row in rows], np.array([int(row[0]) - 1 for row in rows])

    texts, labels = read("train")
    assert assert_equals_oracle(tmp_path, texts, labels, read("test")[0], top_k, tokens) == 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("rows", "classes", "top_k"), [(200, 4, 100), (60, 2, 30), (25, 7, 15), (150, 3, 100_000)])
@pytest.mark.parametrize("tokens", ["word", "char"])
def test_mixed_scripts_have_the_features_and_values_of_scikit_learn(tmp_path, rows, classes, top_k, seed, tokens):
    texts, labels = mixed_texts(rows, classes, seed)
    test_texts, _ = mixed_texts(50, classes, seed + 100)
    assert_equals_oracle(tmp_path, texts, labels, [*test_texts, "", "unheard words", "the"], top_k, tokens)


def test_degenerate_classes_are_treated_as_in_scikit_learn(tmp_path):
    texts = ["same words here"] * 3 + ["other words there"] * 3 + ["", "same other words"]
    for number, labels in enumerate(([0, 0, 0, 1, 1, 1, 2, 3], [0, 0, 0, 5, 5, 5, 5, 0], [0, 1, 2, 3, 4, 5, 6, 7])):
        assert_equals_oracle(tmp_path / str(number), texts, np.array(labels), ["same words", ""], 4)
