"""The sequence pipeline: the most frequent words as numbers, in text order, cut to a maximum length.

Decides: which words are kept, and their ids. Never: decides what a word is (`tokenizer.py`), pads rows, or writes
data sets.

    vectorizer, rows = learn_sequences(store, top_k=20_000, max_length=500)      # store: a filled TokenStore
    vectorizer.transform(["new text"]).columns

Id 0 is padding, which batches add and rows never hold. Id 1 is an unknown word, id 2 the most frequent word, and so on.
Equally frequent words come in alphabetical order, by code point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from distrain.data.prepared.rows import Rows
from distrain.errors import DataError
from distrain.text.readers.texts import Texts
from distrain.text.vectorizers.spilled_words import CountedWords
from distrain.text.vectorizers.token_store import NO_WORDS, TokenStore
from distrain.text.vectorizers.tokenizer import Words, WordTable
from distrain.text.vectorizers.vectorizer_files import (
    damaged,
    save_arrays,
    take_count,
    take_tokens,
    take_words,
    tokens_header,
)
from distrain.text.vectorizers.vocabulary import alphabetical, kept_words, word_ranks

UNKNOWN = 1
FIRST_WORD = 2


@dataclass(frozen=True, eq=False)
class SequenceVectorizer:
    """Text to ragged rows of word ids.

    Attributes:
        words: the kept words; word `i` has id `i + 2`.
        max_length: largest number of ids in a row: the requested length, or the longest training row if shorter.
        tokens: "word", or "char" if each character is a word.
    """

    kind = "sequence"
    words: Words
    max_length: int
    tokens: str = "word"

    @property
    def vocabulary_size(self) -> int:
        """Number of ids: the kept words, padding and the unknown word."""
        return len(self.words) + FIRST_WORD

    @property
    def num_features(self) -> int:
        """The same as `vocabulary_size`."""
        return self.vocabulary_size

    def transform(self, texts: Sequence[str] | Texts) -> Rows:
        """Return the first `max_length` word ids of each text, with labels 0; no words give an empty row."""
        block = texts if isinstance(texts, Texts) else Texts.of(texts)
        row_splits, numbers = self._table.rows(block, add=False)
        ids = np.where(numbers < 0, UNKNOWN, numbers + FIRST_WORD).astype(np.int32)
        return _cut(row_splits, ids, np.zeros(block.num_rows, np.int32), self.max_length)

    def save(self, directory: Path) -> None:
        """Write `vectorizer.json` and its arrays into `directory`, and create the folder if need be."""
        header = {"kind": self.kind, "max_length": self.max_length, "num_features": self.num_features}
        header |= tokens_header(self.tokens)
        save_arrays(directory, header, {"word_pool": self.words.pool, "word_ends": self.words.ends})

    @staticmethod
    def from_arrays(header: dict[str, Any], arrays: dict[str, np.ndarray], directory: Path) -> SequenceVectorizer:
        """Return the vectorizer that `save` wrote, after a check.

        Raises:
            DataError: the arrays break a rule; the message names `directory`.
        """
        words = take_words(arrays, directory)
        if header.get("num_features") != len(words) + FIRST_WORD:
            raise damaged(directory, f"it holds {len(words)} words for {header.get('num_features')!r} ids")
        return SequenceVectorizer(words, take_count(header, "max_length", directory), take_tokens(header, directory))

    @cached_property
    def _table(self) -> WordTable:
        return WordTable(self.words, tokens=self.tokens)


def learn_sequences(store: TokenStore, *, top_k: int, max_length: int) -> tuple[SequenceVectorizer, Iterator[Rows]]:
    """Choose the words of the training rows.

    Args:
        store: the training rows.
        top_k: largest number of kept words.
        max_length: largest number of ids in a row.

    Returns:
        The vectorizer, and an iterator over the training rows in order.

    Raises:
        DataError: no text has a word.
    """
    if not store.num_words:
        raise DataError(NO_WORDS)

    def may_be_kept(words: CountedWords) -> np.ndarray:
        return words.counts >= _kth_largest(words.counts, top_k)

    counted = kept_words(store, may_be_kept)
    counted = counted.select(alphabetical(counted))
    counted = counted.select(np.argsort(-counted.counts.astype(np.int64), kind="stable")[:top_k])
    ids = [np.where(ranks < 0, UNKNOWN, ranks + FIRST_WORD).astype(np.int32) for ranks in word_ranks(store, counted)]
    store.renumber(ids)
    kept = Words.from_units(counted.units, counted.ends)
    vectorizer = SequenceVectorizer(kept, min(max_length, store.longest_row), store.tokens)
    return vectorizer, _training_rows(store, vectorizer.max_length)


def _kth_largest(counts: np.ndarray, k: int) -> int:
    """Return the `k`-th largest count, or 1 if there are at most `k` counts."""
    return int(np.partition(counts, len(counts) - k)[len(counts) - k]) if k < len(counts) else 1


def _training_rows(store: TokenStore, max_length: int) -> Iterator[Rows]:
    for block in store.blocks():
        yield _cut(block.row_splits, block.ids, block.labels, max_length)._replace(weights=block.weights)


def _cut(row_splits: np.ndarray, ids: np.ndarray, labels: np.ndarray, max_length: int) -> Rows:
    """Return the first `max_length` ids of each row."""
    lengths = np.diff(row_splits)
    place_in_row = np.arange(len(ids)) - np.repeat(row_splits[:-1], lengths)
    cut_splits = np.concatenate([[0], np.minimum(lengths, max_length)]).cumsum(dtype=np.int64)
    return Rows(cut_splits, ids[place_in_row < max_length], None, labels)
