"""Word sequences against `collections.Counter` and `re`."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from distrain.errors import DataError
from distrain.text.readers.texts import Texts
from distrain.text.vectorizers.load_vectorizer import load_vectorizer
from distrain.text.vectorizers.sequences import learn_sequences
from distrain.text.vectorizers.token_store import TokenStore


def learn(folder, texts, labels=None, **settings):
    folder.mkdir(exist_ok=True)
    store = TokenStore(folder, memory_mib=64)
    store.add(Texts.of(texts), np.zeros(len(texts), int) if labels is None else labels)
    store.finish()
    vectorizer, rows = learn_sequences(store, **settings)
    return vectorizer, list(rows)


def split(rows):
    return [r.columns[a:b].tolist() for r in rows for a, b in itertools.pairwise(r.row_splits)]


def witness(texts, top_k, max_length, train_texts=None):
    counts = Counter(word for text in train_texts or texts for word in re.findall(r"\w\w+", text.lower()))
    kept = sorted(counts, key=lambda word: (-counts[word], word))[:top_k]
    ids = {word: number for number, word in enumerate(kept, start=2)}
    return [[ids.get(word, 1) for word in re.findall(r"\w\w+", text.lower())][:max_length] for text in texts]


def random_texts(rows, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(f"W{word}" for word in rng.zipf(1.3, rng.integers(0, 40)) % 3000) for _ in range(rows)]


@pytest.mark.parametrize(("top_k", "max_length"), [(20_000, 500), (100, 500), (100, 7), (1, 1)])
def test_rows_are_the_ids_of_the_most_frequent_words(tmp_path, top_k, max_length):
    texts, others = random_texts(800, 0), [*random_texts(100, 1), "", "never seen"]
    labels = np.arange(800) % 3
    vectorizer, rows = learn(tmp_path, texts, labels, top_k=top_k, max_length=max_length)
    assert split(rows) == witness(texts, top_k, max_length)
    assert np.concatenate([r.labels for r in rows]).tolist() == labels.tolist()
    longest = max(map(len, witness(texts, top_k, 10**6)))
    assert vectorizer.max_length == min(max_length, longest)
    assert split([vectorizer.transform(others)]) == witness(others, top_k, vectorizer.max_length, texts)
    assert all(r.columns.dtype == np.int32 and r.row_splits.dtype == np.int64 and r.values is None for r in rows)
    assert vectorizer.num_features == vectorizer.vocabulary_size
    assert vectorizer.vocabulary_size == 2 + min(top_k, len({word for text in texts for word in text.split()}))


def test_of_equally_frequent_words_the_earlier_is_kept(tmp_path):
    vectorizer, rows = learn(tmp_path, ["zz yy xx", "bb aa zz"], top_k=3, max_length=9)
    assert vectorizer.words.to_list() == [b"zz", b"aa", b"bb"]
    assert split(rows) == [[2, 1, 1], [4, 3, 2]]


def test_a_text_without_words_is_an_empty_row(tmp_path):
    vectorizer, rows = learn(tmp_path, ["", "some words", "!"], top_k=9, max_length=9)
    assert split(rows) == [[], [2, 3], []]
    assert split([vectorizer.transform(["", "?"])]) == [[], []]
    assert vectorizer.transform([]).num_rows == 0


def test_no_words_at_all_is_an_error_of_the_data(tmp_path):
    with pytest.raises(DataError, match="nothing to learn"):
        learn(tmp_path, ["", "a b"], top_k=9, max_length=9)


def test_a_saved_vectorizer_does_the_same_and_lies_are_refused(tmp_path):
    vectorizer, _ = learn(tmp_path / "scratch", random_texts(200, 3), top_k=50, max_length=20)
    folder = tmp_path / "vectorizer"
    vectorizer.save(folder)
    loaded = load_vectorizer(folder)
    assert loaded.max_length == vectorizer.max_length
    assert split([loaded.transform(random_texts(50, 4))]) == split([vectorizer.transform(random_texts(50, 4))])
    arrays = load_file(folder / "vectorizer.safetensors")
    save_file({**arrays, "word_ends": arrays["word_ends"][:-1].copy()}, folder / "vectorizer.safetensors")
    with pytest.raises(DataError, match="word_ends"):
        load_vectorizer(folder)
    (folder / "vectorizer.json").write_text(
        (folder / "vectorizer.json").read_text().replace('"max_length": ', '"max_length": -')
    )
    save_file(arrays, folder / "vectorizer.safetensors")
    with pytest.raises(DataError, match="max_length"):
        load_vectorizer(folder)
