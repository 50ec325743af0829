"""The n-gram pipeline: words or characters and their pairs, TF-IDF values, and a choice of features by F-test.

Decides: which n-grams are kept and chosen, and their weights. Never: decides what a word is (`tokenizer.py`), or
writes data sets.

    vectorizer, rows = learn_ngrams(store, top_k=20_000)     # store: a filled TokenStore
    rows = vectorizer.transform(["new text"])                # rows.columns, rows.values

Features and values equal scikit-learn's `TfidfVectorizer(ngram_range=(1, 2), min_df=2, strip_accents="unicode")`
followed by `SelectKBest(f_classif)`. The tokens "char" add `analyzer="char"` to these arguments. An n-gram in at least
`min_df` rows is kept. Its weight in a row is
`count x (ln((1 + rows) / (1 + rows with the n-gram)) + 1)`, divided by the L2 norm of the row over all kept n-grams.
The `top_k` n-grams of largest F value become features; `f_test.best` breaks ties.

Learning walks three times over integers on disk. The first walk counts the rows with each pair of kept words. The
second walk spills the kept n-grams of each row, and sums the candidates by class. The third walk weighs the rows.
Besides the memory bound, each kept n-gram takes the bytes of its index, and 12 bytes more while n-grams are saved.
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
from distrain.text.ragged import RaggedFile
from distrain.text.readers.texts import Texts
from distrain.text.vectorizers.choose_ngrams import find_and_choose, ngram_weights
from distrain.text.vectorizers.feature_tests import Targets
from distrain.text.vectorizers.ngram_counts import kept_ngrams
from distrain.text.vectorizers.ngram_index import NgramIndex
from distrain.text.vectorizers.tfidf_kernels import weigh_rows
from distrain.text.vectorizers.token_store import NO_WORDS, Progress, TokenStore
from distrain.text.vectorizers.tokenizer import Words, WordTable
from distrain.text.vectorizers.vectorizer_files import (
    damaged,
    save_arrays,
    take_array,
    take_count,
    take_tokens,
    take_words,
    tokens_header,
)
from distrain.text.vectorizers.vocabulary import alphabetical, kept_words, word_ranks


@dataclass(frozen=True, eq=False)
class NgramVectorizer:
    """Text to TF-IDF rows over the chosen n-grams.

    Attributes:
        words: the kept words, in UTF-8 order.
        keys: int64, ascending: the kept n-grams as `ngram_kernels` numbers them.
        row_counts: int32, as long as `keys`: number of training rows that hold each n-gram.
        num_rows: number of training rows.
        chosen: int64, ascending: indices in `keys` of the n-grams that became columns.
        index: index that finds the kept n-grams.
        tokens: "word", or "char" if each character is a word.
    """

    kind = "ngram"
    words: Words
    keys: np.ndarray
    row_counts: np.ndarray
    num_rows: int
    chosen: np.ndarray
    index: NgramIndex
    tokens: str = "word"

    @property
    def num_features(self) -> int:
        """Number of chosen n-grams, and thus of columns."""
        return len(self.chosen)

    def feature_names(self) -> list[str]:
        """Return the chosen n-grams in column order, which is alphabetical (by code point)."""
        words = [word.decode() for word in self.words.to_list()]
        firsts, seconds = _ranks_of(self.keys[self.chosen])
        pairs = zip(firsts.tolist(), seconds.tolist(), strict=True)
        between = "" if self.tokens == "char" else " "
        return [words[first] if second < 0 else words[first] + between + words[second] for first, second in pairs]

    def transform(self, texts: Sequence[str] | Texts) -> Rows:
        """Return the TF-IDF rows of `texts`, with labels 0. A text without a chosen n-gram gives an empty row."""
        block = texts if isinstance(texts, Texts) else Texts.of(texts)
        found = self.index.find(*self._table.rows(block, add=False))
        return Rows(*self.weigh(*found), np.zeros(block.num_rows, np.int32))

    def weigh(self, row_splits: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return row splits, columns and TF-IDF values of rows that `index.find` returned."""
        return weigh_rows(row_splits, numbers, self.index.row_counts, self._weights, self._columns)

    def save(self, directory: Path) -> None:
        """Write `vectorizer.json` and its arrays into `directory`, and create the folder if need be."""
        header = {"kind": self.kind, "num_rows": self.num_rows, "num_features": self.num_features}
        header |= tokens_header(self.tokens)
        arrays = {
            "word_pool": self.words.pool,
            "word_ends": self.words.ends,
            "keys": self.keys,
            "row_counts": self.row_counts,
            "chosen": self.chosen,
        }
        save_arrays(directory, header, arrays)

    @staticmethod
    def from_arrays(header: dict[str, Any], arrays: dict[str, np.ndarray], directory: Path) -> NgramVectorizer:
        """Return the vectorizer that `save` wrote.

        Kernels index memory with these numbers, so this checks that all numbers are in range.

        Raises:
            DataError: the arrays break a rule; the message names `directory`.
        """
        words = take_words(arrays, directory)
        keys = take_array(arrays, "keys", np.int64, directory)
        row_counts = take_array(arrays, "row_counts", np.int32, directory)
        chosen = take_array(arrays, "chosen", np.int64, directory)
        num_rows = take_count(header, "num_rows", directory)
        if not (len(keys) and len(keys) < 2**31 and np.all(np.diff(keys) > 0) and keys[0] >= 0):
            raise damaged(directory, "'keys' do not ascend from 0")
        firsts, seconds = _ranks_of(keys)
        if firsts.max() >= len(words) or seconds.max() >= len(words):
            raise damaged(directory, "'keys' name words that are not there")
        if len(row_counts) != len(keys) or row_counts.min() < 1 or row_counts.max() > num_rows:
            raise damaged(directory, f"'row_counts' are not one for each key, from 1 to {num_rows}")
        if not (len(chosen) and chosen[0] >= 0 and chosen[-1] < len(keys) and np.all(np.diff(chosen) > 0)):
            raise damaged(directory, "'chosen' does not ascend within 'keys'")
        if len(chosen) != header.get("num_features"):
            raise damaged(directory, f"'chosen' has {len(chosen)} n-grams, not {header.get('num_features')!r}")
        index = NgramIndex(keys, row_counts, len(words))
        return NgramVectorizer(words, keys, row_counts, num_rows, chosen, index, take_tokens(header, directory))

    @cached_property
    def _table(self) -> WordTable:
        return WordTable(self.words, tokens=self.tokens)

    @cached_property
    def _weights(self) -> np.ndarray:
        return ngram_weights(self.row_counts, self.num_rows)

    @cached_property
    def _columns(self) -> np.ndarray:
        numbers = self.index.numbers(self.keys[self.chosen])
        columns = np.full(numbers.max() + 1, -1, np.int32)
        columns[numbers] = np.arange(len(numbers))
        return columns


def learn_ngrams(
    store: TokenStore,
    *,
    top_k: int,
    min_df: int = 2,
    progress: Progress | None = None,
    targets: Targets | None = None,
) -> tuple[NgramVectorizer, Iterator[Rows]]:
    """Choose the n-grams of the training rows.

    Args:
        store: the training rows; learning writes temporary files into the store's scratch folder.
        top_k: largest number of chosen n-grams.
        min_df: smallest number of rows with an n-gram that is kept.
        progress: function to call repeatedly; see `Progress`.
        targets: what the labels of the store are; by default each label is the number of a class.

    Returns:
        The vectorizer, and an iterator over the training rows in order. The rows equal `transform` of their texts, bit
        by bit.

    Raises:
        DataError: no text has a word, or no n-gram is in `min_df` rows.
    """
    if not store.num_words:
        raise DataError(NO_WORDS)
    counted = kept_words(store, lambda words: words.row_counts >= min_df)
    if not len(counted.ends):
        token = "character" if store.tokens == "char" else "word"
        raise DataError(
            f"No {token} is in {min_df} training rows or more, so there is no n-gram to learn from. "
            "Check the text columns, or use more rows."
        )
    counted = counted.select(alphabetical(counted))
    store.renumber(word_ranks(store, counted))
    keys, row_counts = kept_ngrams(store, counted.row_counts, min_df=min_df, progress=progress)
    index = NgramIndex(keys, row_counts, len(counted.ends))
    found, chosen = find_and_choose(store, index, targets, top_k, progress)
    words = Words.from_units(counted.units, counted.ends)
    chosen = np.searchsorted(keys, chosen)
    vectorizer = NgramVectorizer(words, keys, row_counts, store.num_rows, chosen, index, store.tokens)
    return vectorizer, _training_rows(store, found, vectorizer)


def _ranks_of(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ranks of the first and the second word of n-grams; -1 for a missing second word."""
    return keys >> 32, (keys & 0xFFFFFFFF) - 1


def _training_rows(store: TokenStore, found: RaggedFile, vectorizer: NgramVectorizer) -> Iterator[Rows]:
    for block in store.blocks(found):
        yield Rows(*vectorizer.weigh(block.row_splits, block.ids), block.labels, block.weights)
