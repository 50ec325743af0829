"""The chosen n-grams against scikit-learn's scores: of many classes, of several labels, and of numbers."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import f_classif, f_regression

from distrain.text.readers.texts import Texts
from distrain.text.vectorizers import group_sums
from distrain.text.vectorizers.feature_tests import RowGroups, RowNumbers
from distrain.text.vectorizers.ngrams import learn_ngrams
from distrain.text.vectorizers.token_store import TokenStore

TOP_K = 40
RNG = np.random.default_rng(5)
NUM_ROWS = 600


def texts_of(topics):
    """Texts whose words follow the topics of each row, lists of numbers."""
    return [
        " ".join([f"t{topic}w{word}" for topic in row for word in RNG.integers(0, 3, 4)] + [f"x{n}" for n in more])
        for row, more in zip(topics, RNG.integers(0, 40, (len(topics), 6)).tolist(), strict=True)
    ]


def chosen(folder, texts, labels, targets, memory_bytes, dtype=np.int32):
    """The chosen n-grams, with as little memory as given."""
    folder.mkdir()
    store = TokenStore(folder, memory_mib=64, label_dtype=dtype)
    store.memory_bytes = memory_bytes
    store.add(Texts.of(texts), labels)
    store.finish()
    vectorizer, _ = learn_ngrams(store, top_k=TOP_K, targets=targets)
    return set(vectorizer.feature_names())


def best(texts, score):
    """The n-grams of highest score by scikit-learn, with the later name first among equal scores."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, strip_accents="unicode")
    scores = score(vectorizer.fit_transform(texts))
    names = vectorizer.get_feature_names_out()
    order = sorted(range(len(names)), key=lambda i: (float(f"{scores[i]:.9e}"), names[i]), reverse=True)
    return {str(names[i]) for i in order[:TOP_K]}


@pytest.fixture(params=[(2**26, 64), (2**26, 0), (3 * 2000, 0)], ids=["table", "one walk", "many walks"])
def memory_bytes(request, monkeypatch):
    memory, table_groups = request.param
    monkeypatch.setattr(group_sums, "TABLE_GROUPS", table_groups)
    return memory


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
def test_many_classes(tmp_path, memory_bytes):
    labels = np.concatenate([np.arange(150), RNG.integers(0, 150, NUM_ROWS - 150)])
    texts = texts_of([[label] for label in labels.tolist()])
    found = chosen(tmp_path / "a", texts, labels, None, memory_bytes)
    assert found == best(texts, lambda rows: np.nan_to_num(f_classif(rows, labels)[0], nan=-1))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_several_labels(tmp_path, memory_bytes):
    sets = [sorted({int(n) for n in RNG.integers(0, 30, size)}) for size in RNG.integers(0, 4, NUM_ROWS)]
    sets[3] = list(range(30))
    texts = texts_of(sets)
    distinct = [list(one) for one in dict.fromkeys(map(tuple, sets))]
    numbers = np.array([distinct.index(one) for one in sets])
    items = np.array([label for one in distinct for label in one], np.int32)
    groups = RowGroups(np.cumsum([0, *map(len, distinct)]), items, 30, are_classes=False)
    members = np.array([[label in one for label in range(30)] for one in sets])
    found = chosen(tmp_path / "a", texts, numbers, groups, memory_bytes)
    assert found == best(texts, lambda rows: np.max([f_classif(rows, label)[0] for label in members.T], axis=0))


def test_a_row_of_many_labels_takes_memory_for_its_own_ngrams_alone(tmp_path):
    sets = [[number] for number in range(NUM_ROWS)] + [list(range(NUM_ROWS))]
    texts = [f"w{number % 300} x{number % 290} y{number % 280}" for number in range(NUM_ROWS)] + ["w0 x0 y0"]
    groups = RowGroups(np.cumsum([0, *map(len, sets)]), np.concatenate(sets).astype(np.int32), NUM_ROWS, False)
    store = TokenStore(tmp_path, memory_mib=64)
    store.memory_bytes = 3 * 400_000  # room for 400 bytes an n-gram, or for 33 n-grams with a slot for each label
    store.add(Texts.of(texts), np.arange(len(sets)))
    store.finish()
    steps = []
    learn_ngrams(store, top_k=2000, targets=groups, progress=lambda *step: steps.append(step))
    assert steps.count(("finding n-grams", 1.0)) == 1
    assert steps.count(("testing n-grams", 1.0)) == 1


def test_numbers(tmp_path, memory_bytes):
    targets = RNG.normal(20, 5, NUM_ROWS).astype(np.float32)
    texts = texts_of([[int(target)] for target in targets])
    numbers = RowNumbers(float(targets.mean(dtype=np.float64)), float(targets.std(dtype=np.float64)))
    found = chosen(tmp_path / "a", texts, targets, numbers, memory_bytes, np.float32)
    assert found == best(texts, lambda rows: f_regression(rows, targets.astype(np.float64))[0])
