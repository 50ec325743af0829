"""N-grams: which are chosen, bounded memory, and the rows of a text."""

from __future__ import annotations

import numpy as np
import pytest
from ngram_learning import learn, mixed_texts

from distrain.errors import DataError
from distrain.text.vectorizers import choose_ngrams


def test_of_equal_scores_the_alphabetically_later_is_kept(tmp_path):
    # Two pairs of n-grams that mirror each other: "aa"/"bb" mark one class, "yy"/"zz" the other, all alike.
    texts = ["aa", "bb", "aa", "bb", "yy", "zz", "yy", "zz"]
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    for top_k, kept in ((1, ["zz"]), (2, ["yy", "zz"]), (3, ["bb", "yy", "zz"])):
        vectorizer, _ = learn(tmp_path / str(top_k), texts, labels, top_k=top_k)
        assert vectorizer.feature_names() == kept


def test_what_cannot_be_chosen_is_not_tested(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 2000)
    numbers = rng.integers(0, 400, (2000, 2)).tolist()
    texts = [f"{'good' if label else 'bad'} w{a} w{b}" for label, (a, b) in zip(labels, numbers, strict=True)]
    doings = []
    for enough in (2**20, 100):
        monkeypatch.setattr(choose_ngrams, "_ENOUGH", enough)
        doings.append([])
        vectorizer, _ = learn(
            tmp_path / str(enough), texts, labels, top_k=2, progress=lambda doing, fraction: doings[-1].append(doing)
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
            progress=lambda doing, fraction, name=name: walks[name].append((doing, fraction)),
        )
    assert not any((tmp_path / "plenty").glob("words-0-*.units"))
    assert len(list((tmp_path / "little").glob("words-0-*.units"))) > 2
    partitionings = {
        name: [doing for doing, _ in walk].count("partitioning pairs of words") for name, walk in walks.items()
    }
    assert partitionings["plenty"] <= 3
    assert partitionings["little"] > 20
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
