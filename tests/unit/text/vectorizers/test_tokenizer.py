"""Words and the token store, against scikit-learn's analyzer and the standard library."""

# ruff: noqa: RUF001  (letters that look alike are what is tested)

from __future__ import annotations

import itertools
import statistics
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from tokens import tokens_of

from distrain.text.ragged import BLOCK_VALUES, RaggedFile
from distrain.text.readers.texts import Texts
from distrain.text.vectorizers.spilled_words import CountedWords, table_words
from distrain.text.vectorizers.token_store import TokenStore
from distrain.text.vectorizers.tokenizer import CHUNK_BYTES, Words, WordTable
from distrain.text.vectorizers.tokenizer_kernels import SplitWords, pack_words
from distrain.text.vectorizers.vocabulary import alphabetical
from distrain.text.vectorizers.word_table_kernels import number_words

analyze = TfidfVectorizer(strip_accents="unicode").build_analyzer()

HARD_TEXTS = [
    "",
    " ",
    "a b c",
    "ab_c _ __ 12 1",
    "ΌΣΟΣ ΟΣ. ΑΣ\u0301 ΣΑΣ ΣΣ",
    "İstanbul ISPARTA ıI",
    "ﬁne ﬃ ﷺ ½ x²y ℂ℞ Ⅷ",
    "e\u0301a\u0300 été \u0301\u0301 a\u0301b",
    "हिन्दी देवनागरी",
    "中文 字符 日本語テキスト 한국어",
    "１２３ ４ ＡＢ",
    "ß ẞ ǅ straße",
    "a\u00a8b c\u00b4d e\u00adf g\u200dh i\u200bj",
    "😀😀 a😀b",
    "\ud800ab\udfffcd",
    "\ufffdab\ufffd",
    "\x00ab\x00cd\nef\r\ngh\tij",
]


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_hard_texts_have_the_words_of_scikit_learn(text):
    assert tokens_of(WordTable(), [text]) == [analyze(text)]


def test_every_assigned_character_folds_as_in_scikit_learn():
    characters = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cn", "Co")]
    assert len(characters) > 140_000
    texts = [
        " ".join(f"a{c}b {c}{c}" for c in characters[start : start + 64]) for start in range(0, len(characters), 64)
    ]
    assert tokens_of(WordTable(), texts) == [analyze(text) for text in texts]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(st.one_of(st.characters(), st.sampled_from("aB cΣσ.İ\u0301é _1\n")), max_size=40), max_size=8))
def test_any_texts_have_the_words_of_scikit_learn(texts):
    assert tokens_of(WordTable(), texts) == [analyze(text) for text in texts]


def test_words_are_numbered_by_first_appearance_and_keep_their_numbers():
    table = WordTable()
    _, first = table.rows(Texts.of(["the cat the dog"]), add=True)
    _, second = table.rows(Texts.of(["dog bird cat"]), add=True)
    assert first.tolist() == [0, 1, 0, 2]
    assert second.tolist() == [2, 3, 1]
    again = WordTable(Words.from_list(table.words.to_list()))
    assert again.rows(Texts.of(["bird fish the"]), add=False)[1].tolist() == [3, -1, 0]
    assert len(again) == 4


def test_tables_grow_and_tell_half_a_million_words_apart():
    texts = Texts.of(
        [" ".join(f"w{number}" for number in range(start, start + 1000)) for start in range(0, 500_000, 1000)]
    )
    table = WordTable()
    _, ids = table.rows(texts, add=True)
    assert np.array_equal(ids, np.arange(500_000))
    assert np.array_equal(table.rows(texts, add=False)[1], ids)


def test_equal_hashes_are_distinguished_by_their_bytes():
    names = [b"one", b"two", b"one", b"six", b"sixty is long", b"two", b"sixty is lonG", b"sixty is long"]
    words = Words.from_list(names)
    units, ends = pack_words(words.pool, words.ends)
    split = SplitWords(units, ends, np.full(8, 5), np.array([0, 3, 8]))
    slots, pool = np.zeros((16, 2), np.uint64), np.empty(64, np.uint64)
    info, ids = np.zeros((9, 4), np.int32), np.empty(8, np.int32)
    assert number_words(split, 0, 0, 0, slots, pool, info, 0, True, ids) == (2, 8, 5)
    assert ids.tolist() == [0, 1, 0, 2, 3, 1, 4, 3]
    assert info[:5, 2].tolist() == [1, 2, 1, 1, 1]  # rows with each
    assert info[:5, 3].tolist() == [2, 2, 1, 2, 1]  # how often
    assert Words.from_units(units, ends).to_list() == names


@settings(max_examples=100, deadline=None)
@given(st.sets(st.text("ab\u00e9\u4e2d", min_size=1, max_size=40), min_size=1, max_size=20), st.booleans())
def test_words_are_ordered_by_their_bytes(names, long):
    names = [("same beginning of four units " if long else "").encode() + name.encode() for name in names]
    table = WordTable(Words.from_list(names))
    words = table_words(table)
    assert [names[index] for index in alphabetical(words)] == sorted(names)
    assert isinstance(words, CountedWords)


def test_a_word_longer_than_a_chunk_is_one_word():
    long = "x" * (3 * CHUNK_BYTES)
    table = WordTable()
    row_splits, ids = table.rows(Texts.of(["ab", f"{long} ab {long}", f"{long}y"]), add=True)
    assert row_splits.tolist() == [0, 1, 4, 5]
    assert ids.tolist() == [0, 1, 0, 1, 2]
    assert len(table.words.to_list()[1]) == len(long)


def texts_and_labels(rows, seed=0):
    rng = np.random.default_rng(seed)
    texts = [" ".join(f"w{word}" for word in rng.zipf(1.4, rng.integers(0, 30)) % 999) for _ in range(rows)]
    return texts, rng.integers(0, 5, rows)


def test_the_store_gives_back_words_and_labels_in_order_however_they_were_added(tmp_path):
    texts, labels = texts_and_labels(800)
    expected = [analyze(text) for text in texts]
    read = []
    for name, step in (("one", 1), ("many", 150), ("all", 800)):
        (tmp_path / name).mkdir()
        store = TokenStore(tmp_path / name, memory_mib=64)
        for start in range(0, len(texts), step):
            store.add(Texts.of(texts[start : start + step]), labels[start : start + step])
        store.finish()
        [run] = store.runs()
        names = [word.decode() for word in Words.from_units(run.units, run.ends).to_list()]
        assert dict(zip(names, run.counts, strict=True)) == Counter(itertools.chain.from_iterable(expected))
        assert dict(zip(names, run.row_counts, strict=True)) == Counter(word for row in expected for word in set(row))
        store.renumber([np.arange(len(names), dtype=np.int32)])
        blocks = list(store.blocks())
        rows = [
            [names[number] for number in block.ids[start:end]]
            for block in blocks
            for start, end in itertools.pairwise(block.row_splits)
        ]
        assert rows == expected
        assert np.concatenate([block.labels for block in blocks]).tolist() == labels.tolist()
        assert store.num_rows == len(texts)
        assert store.num_words == sum(map(len, expected))
        assert store.longest_row == max(map(len, expected))
        assert store.median_words_per_row() == statistics.median(map(len, expected))
        assert store.class_sizes.tolist() == np.bincount(labels).tolist()
        read.append(np.concatenate([block.ids for block in blocks]))
    assert np.array_equal(read[0], read[1])
    assert np.array_equal(read[0], read[2])


@given(st.lists(st.integers(0, 12), min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_the_median_is_exact(tmp_path_factory, lengths):
    store = TokenStore(tmp_path_factory.mktemp("store"), memory_mib=64)
    store.add(Texts.of(["ab " * length for length in lengths]), np.zeros(len(lengths), int))
    store.finish()
    assert store.median_words_per_row() == statistics.median(lengths)


def test_ragged_files_come_back_in_bounded_blocks(tmp_path):
    lengths = [0, BLOCK_VALUES // 2, BLOCK_VALUES // 2, 1, 3 * BLOCK_VALUES, 0, 5, *([1, 2] * 40_000), 0]
    file = RaggedFile(tmp_path, "rows")
    values = np.arange(sum(lengths), dtype=np.int32)
    file.append(np.cumsum([0, *lengths]), values)
    blocks = list(file.blocks())
    assert np.concatenate([block_values for _, block_values in blocks]).tolist() == values.tolist()
    assert [n for splits, _ in blocks for n in np.diff(splits)] == lengths
    assert all(splits[0] == 0 and splits[-1] == len(block_values) for splits, block_values in blocks)
    assert all(len(block_values) <= BLOCK_VALUES or len(splits) == 2 for splits, block_values in blocks)


def test_an_empty_store_has_no_rows(tmp_path):
    store = TokenStore(tmp_path, memory_mib=64)
    store.add(Texts.of([]), np.zeros(0, int))
    store.finish()
    store.renumber([np.empty(0, np.int32)])
    assert list(store.blocks()) == []
    assert (store.num_rows, store.num_words, store.median_words_per_row()) == (0, 0, 0.0)


@pytest.mark.parametrize("labels", [[0, -1], [0], [0, 1, 2]])
def test_labels_that_do_not_fit_are_refused(tmp_path, labels):
    with pytest.raises(ValueError, match="labels must be"):
        TokenStore(tmp_path, memory_mib=64).add(Texts.of(["one", "two"]), np.array(labels))
