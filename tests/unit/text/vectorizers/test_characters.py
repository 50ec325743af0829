"""Characters as tokens, against scikit-learn's character analyzer; vectorizers of characters on disk."""

from __future__ import annotations

import json
import random
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ngram_learning import learn
from sklearn.feature_extraction.text import TfidfVectorizer
from tokens import tokens_of

from distrain.errors import DataError
from distrain.text.readers.texts import Texts
from distrain.text.vectorizers.load_vectorizer import load_vectorizer
from distrain.text.vectorizers.sequences import learn_sequences
from distrain.text.vectorizers.token_store import TokenStore
from distrain.text.vectorizers.tokenizer import CHUNK_BYTES, WordTable

analyze = TfidfVectorizer(analyzer="char", strip_accents="unicode").build_analyzer()

HARD_TEXTS = [
    "",
    " ",
    "  two  spaces ",
    "\ttab\t\ttabs\n\nlines\r\none\u2028line\x85next\x1c\x1d",
    "no\u00a0break\u00a0\u00a0twice \u3000wide\u1680ogham\u1680 \u1680",
    "\u00a8 diaeresis is a space\u00a8\u00a8",
    "\u038c\u03a3\u039f\u03a3 \u039f\u03a3. \u0391\u03a3\u0301 \u03a3\u0391\u03a3",
    "\u0130stanbul ISPARTA",
    "\ufb01ne \ufb03 \ufdfa \u00bd \u2167 \u3231",
    "e\u0301a\u0300 \u0301\u0301 a\u0301b",
    "हिन्दी देवनागरी",
    "中文字符。日本語テキスト 한국어 가각",
    "😀😀 a😀b 👩\u200d🚀",
    "#!$%&'()*+,-./:;<=>?@[]^_`{|}~",
]


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_hard_texts_have_the_characters_of_scikit_learn(text):
    assert tokens_of(WordTable(tokens="char"), [text]) == [analyze(text)]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
def test_any_text_has_the_characters_of_scikit_learn(texts):
    assert tokens_of(WordTable(tokens="char"), texts) == [analyze(text) for text in texts]


def test_all_characters_alone_and_between_spaces():
    """A character that scikit-learn may change, or that is no letter, has a text of its own."""
    characters = [chr(code) for code in range(1, 0x30000) if not 0xD800 <= code < 0xE000]
    texts = [" ".join(characters[start : start + 64]) for start in range(0, len(characters), 64)]
    texts += [f"{c} {c}a" for c in characters if is_assigned(c) and not (c.isalpha() and is_unchanged(c))]
    assert len(texts) > 20_000
    assert tokens_of(WordTable(tokens="char"), texts) == [analyze(text) for text in texts]


def is_assigned(character):
    return unicodedata.category(character) not in ("Cn", "Co")


def is_unchanged(character):
    return unicodedata.normalize("NFKD", character.lower()) == character


def test_long_texts_are_cut_into_chunks():
    text = "lorem ipsum " * (CHUNK_BYTES // 6)
    assert tokens_of(WordTable(tokens="char"), [text, "a", text]) == [[*text], ["a"], [*text]]


def test_characters_that_utf_8_cannot_hold():
    assert tokens_of(WordTable(tokens="char"), ["a\ud800b", "a\0b"]) == [["a", "\ufffd", "b"], ["a", " ", "b"]]


def test_unknown_characters():
    table = WordTable(tokens="char")
    tokens_of(table, ["abc"])
    assert tokens_of(table, ["abd"], add=False) == [["a", "b", None]]


def texts_and_labels():
    draw = random.Random(0)
    labels = np.array([number % 2 for number in range(200)])
    return ["".join(draw.choices("今天我们这个" + "喜坏"[label], k=12)) for label in labels], labels


def test_a_saved_vectorizer_of_characters(tmp_path):
    texts, labels = texts_and_labels()
    vectorizer, rows = learn(tmp_path / "scratch", texts, labels, top_k=20, tokens="char")
    vectorizer.save(tmp_path / "saved")
    again = load_vectorizer(tmp_path / "saved")
    assert again.tokens == "char"
    assert again.feature_names() == vectorizer.feature_names()
    assert "喜" in again.feature_names()
    for field in ("row_splits", "columns", "values"):
        assert getattr(again.transform(texts), field).tolist() == getattr(rows[0], field).tolist()
    header = tmp_path / "saved" / "vectorizer.json"
    header.write_text(header.read_text().replace('"char"', '"syllable"'))
    with pytest.raises(DataError, match="tokens is 'syllable', not 'word' or 'char'"):
        load_vectorizer(tmp_path / "saved")


def test_a_vectorizer_of_words_says_nothing_of_tokens(tmp_path):
    vectorizer, _ = learn(
        tmp_path / "scratch", ["the cat", "a dog", "the cat", "a dog"], np.array([0, 1, 0, 1]), top_k=9
    )
    vectorizer.save(tmp_path / "saved")
    assert "tokens" not in json.loads((tmp_path / "saved" / "vectorizer.json").read_text())
    assert load_vectorizer(tmp_path / "saved").tokens == "word"


def test_sequences_of_characters(tmp_path):
    (tmp_path / "scratch").mkdir()
    store = TokenStore(tmp_path / "scratch", memory_mib=64, tokens="char")
    store.add(Texts.of(["aab", "aa c", "ab"]), np.array([0, 1, 0]))
    store.finish()
    vectorizer, rows = learn_sequences(store, top_k=3, max_length=3)
    # By frequency: a (5 times), b (twice), then the space and c, of which the space comes first.
    assert [block.columns.tolist() for block in rows] == [[2, 2, 3, 2, 2, 4, 2, 3]]
    assert vectorizer.transform(["caa"]).columns.tolist() == [1, 2, 2]
    vectorizer.save(tmp_path / "saved")
    assert load_vectorizer(tmp_path / "saved").transform(["b a"]).columns.tolist() == [3, 4, 2]
