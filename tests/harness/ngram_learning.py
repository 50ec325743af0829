"""An n-gram vectorizer that learns from texts in memory, and random texts in many scripts."""

# ruff: noqa: RUF001  (the letters look alike on purpose)

from __future__ import annotations

import numpy as np

from distrain.text.readers.texts import Texts
from distrain.text.vectorizers.ngrams import learn_ngrams
from distrain.text.vectorizers.token_store import TokenStore


def learn(folder, texts, labels, *, memory_bytes=None, tokens="word", **settings):
    folder.mkdir(exist_ok=True)
    store = TokenStore(folder, memory_mib=64, tokens=tokens)
    store.memory_bytes = memory_bytes or store.memory_bytes
    for start in range(0, len(texts), 1000):
        store.add(Texts.of(texts[start : start + 1000]), labels[start : start + 1000])
    store.finish()
    vectorizer, rows = learn_ngrams(store, **settings)
    return vectorizer, list(rows)


MIXED = [
    *("the", "The", "THE", "café", "Cafe\u0301", "naïve", "ΣΟΦΟΣ", "σοφος", "ΣΟΦΟΣ.", "İzmir", "izmir", "straße"),
    *("ﬁne", "fine", "１２３", "123", "한국", "हिन्दी", "中文", "中文字", "x²y", "😀ok", "ok\ufffdok", "a\ud800b"),
    *("under_score", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "don't", "e-mail"),
    *("½", "Ⅷ", "ℂx"),
]


WORDS = np.array(MIXED)


def mixed_texts(rows, classes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    weights = rng.dirichlet(np.ones(len(MIXED)), classes)
    texts = [" ".join(rng.choice(WORDS, rng.integers(0, 25), p=weights[label])) for label in labels]
    return texts, labels
