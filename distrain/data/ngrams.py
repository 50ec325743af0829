"""The n-gram pipeline: words and pairs of words, TF-IDF, the best by F-test.

Decides: which n-grams are kept and chosen, and their weights. Never: what a word is (`words.py`), writes data.

    vectorizer, rows = learn_ngrams(store, top_k=20_000)     # store: a filled TokenStore
    rows = vectorizer.transform(["new text"])                # rows.columns, rows.values

The features and values are those of scikit-learn's `TfidfVectorizer(ngram_range=(1, 2), min_df=2,
strip_accents="unicode")` followed by `SelectKBest(f_classif)`: kept are the n-grams in at least `min_df` rows;
weights are count x (ln((1 + rows) / (1 + rows with it)) + 1); rows are divided by their L2 norm over all kept
n-grams; chosen are the `top_k` of largest F value, ties as `anova.best` rules.

Learning walks over integers on disk: rows with each word; rows with each pair of kept words, in as many parts as
memory asks for; the kept n-grams of each row, spilled; sums by class, in as many parts; the rows. Besides the
memory bound, a kept n-gram takes about 50 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from distrain.data.anova import best, f_scores
from distrain.data.ngram_kernels import (
    PART_BITS,
    add_class_sums,
    count_pairs,
    count_rows_with_word,
    find_ngrams,
    key_slots,
    refill,
    weigh_rows,
)
from distrain.data.shards import Rows
from distrain.data.tokens import NO_WORDS, Progress, RaggedFile, TokenStore
from distrain.data.vectorizer_files import damaged, save_arrays, take_array, take_count, take_words
from distrain.data.words import Words, WordTable, random_key
from distrain.errors import DataError


@dataclass(frozen=True, eq=False)
class NgramVectorizer:
    """Text to TF-IDF rows over the chosen n-grams.

    Attributes:
        words: the kept words, in UTF-8 order.
        keys: int64, ascending: the kept n-grams as `ngram_kernels` numbers them.
        row_counts: int32, as long as `keys`: training rows that hold each.
        num_rows: training rows.
        chosen: int64, ascending: places in `keys` of the n-grams that became columns.
    """

    kind = "ngram"
    words: Words
    keys: np.ndarray
    row_counts: np.ndarray
    num_rows: int
    chosen: np.ndarray

    @property
    def num_features(self) -> int:
        """Number of chosen n-grams: columns are below this."""
        return len(self.chosen)

    def feature_names(self) -> list[str]:
        """The chosen n-grams in column order, which is alphabetical (by code point)."""
        words = [word.decode() for word in self.words.to_list()]
        firsts, seconds = _ranks_of(self.keys[self.chosen])
        pairs = zip(firsts.tolist(), seconds.tolist(), strict=True)
        return [words[first] if second < 0 else f"{words[first]} {words[second]}" for first, second in pairs]

    def transform(self, texts: Sequence[str]) -> Rows:
        """TF-IDF rows of `texts`; labels are zeros. A text without a chosen n-gram gives an empty row."""
        row_splits, columns, values = weigh_rows(
            *self._index.find(*self._table.rows(texts, add=False)), self._idf, self._columns
        )
        return Rows(row_splits, columns, values, np.zeros(len(texts), np.int32))

    def save(self, directory: Path) -> None:
        """Write `vectorizer.json` and its arrays into `directory`, which is made if need be."""
        header = {"kind": self.kind, "num_rows": self.num_rows, "num_features": self.num_features}
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
        """What `save` wrote, checked to be in range, as kernels index memory by it.

        Raises:
            DataError: the arrays break a rule; `directory` is named.
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
        return NgramVectorizer(words, keys, row_counts, num_rows, chosen)

    @cached_property
    def _table(self) -> WordTable:
        return WordTable(self.words)

    @cached_property
    def _index(self) -> _NgramIndex:
        return _NgramIndex(self.keys, len(self.words))

    @cached_property
    def _idf(self) -> np.ndarray:
        return _idf(self.row_counts, self.num_rows)

    @cached_property
    def _columns(self) -> np.ndarray:
        columns = np.full(len(self.keys), -1, np.int32)
        columns[self.chosen] = np.arange(len(self.chosen))
        return columns


def learn_ngrams(
    store: TokenStore, *, top_k: int, min_df: int = 2, progress: Progress | None = None
) -> tuple[NgramVectorizer, Iterator[Rows]]:
    """Choose the n-grams of the training rows.

    Args:
        store: the training rows; its scratch folder takes another temporary file.
        top_k: n-grams chosen, at most.
        min_df: rows that an n-gram must be in.
        progress: called now and then.

    Returns:
        The vectorizer, and the training rows in order: made as they are walked, to be walked once, and the same
        as `transform` of their text, bit by bit.

    Raises:
        DataError: no text has a word, or no n-gram is in `min_df` rows.
    """
    if not store.num_words:
        raise DataError(NO_WORDS)
    ranks, words, word_rows = _keep_words(store, min_df, progress)
    if not len(words):
        raise DataError(
            f"No word is in {min_df} training rows or more, so there is no n-gram to learn from. "
            "Check the text columns, or use more rows."
        )
    pairs, pair_rows = _frequent_pairs(store, ranks, min_df, progress)
    keys = np.concatenate([np.arange(len(words), dtype=np.int64) << 32, pairs])
    order = np.argsort(keys)
    keys, row_counts = keys[order], np.concatenate([word_rows, pair_rows])[order]
    idf = _idf(row_counts, store.num_rows)
    found = _spill_ngrams(store, ranks, _NgramIndex(keys, len(words)), progress)
    chosen = best(_scores(store, found, idf, progress), top_k)
    vectorizer = NgramVectorizer(words, keys, row_counts, store.num_rows, chosen)
    return vectorizer, _training_rows(store, found, vectorizer)


class _NgramIndex:
    """Finds the kept n-grams in rows of word ranks."""

    def __init__(self, keys: np.ndarray, num_words: int) -> None:
        self._keys = keys
        self._seed = random_key()
        self._slots = key_slots(keys, 2 ** int(2 * len(keys) - 1).bit_length(), self._seed)
        firsts, seconds = _ranks_of(keys)
        self._unigrams = np.full(num_words, -1, np.int32)
        self._unigrams[firsts[seconds < 0]] = np.flatnonzero(seconds < 0)

    def find(self, row_splits: np.ndarray, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row splits and n-gram numbers (int32), ascending in a row, each as often as it occurs."""
        found = find_ngrams(row_splits, ranks, self._unigrams, self._keys, self._slots, self._seed)
        found.sort()
        row_starts = np.arange(len(row_splits), dtype=np.int64) << 32
        return np.searchsorted(found, row_starts), found.astype(np.int32)  # the lower half: the n-gram


def _ranks_of(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the first and the second word of n-grams; -1 where there is no second."""
    return keys >> 32, (keys & 0xFFFFFFFF) - 1


def _idf(row_counts: np.ndarray, num_rows: int) -> np.ndarray:
    """scikit-learn's smooth IDF, in its order of operations: ln((1 + rows) / (1 + rows with it)) + 1."""
    return np.log((num_rows + 1) / (row_counts + 1.0)) + 1.0


def _keep_words(store: TokenStore, min_df: int, progress: Progress | None) -> tuple[np.ndarray, Words, np.ndarray]:
    """Rank of each word of the store (-1: in fewer than `min_df` rows), the kept words by rank, rows with each."""
    rows = np.zeros(len(store.words), np.int32)
    last = np.full(len(rows), -1, np.int32)
    for block in store.reported_blocks("counting words", progress):
        count_rows_with_word(block.row_splits, block.ids, block.first_row, last, rows)
    kept = np.flatnonzero(rows >= min_df)
    words = store.words.take(kept)
    order = np.array(sorted(range(len(words)), key=words.__getitem__), np.int64)
    ranks = np.full(len(rows), -1, np.int32)
    ranks[kept[order]] = np.arange(len(kept))
    return ranks, Words.from_list([words[place] for place in order]), rows[kept[order]]


def _frequent_pairs(
    store: TokenStore, ranks: np.ndarray, min_df: int, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray]:
    """Keys of the pairs of neighbouring kept words that are in `min_df` rows, and rows with each; in no order.

    Counts in one hash table. When the table would outgrow its memory, half of the pairs, by their hash, are struck
    from it and left to another walk over the rows; what stays has been counted from the first row on.
    """
    seed = random_key()
    most_slots = max(2**12, store.memory_bytes // (4 * 16))  # 16 bytes a slot; old and new table stand side by side
    first_slots = min(most_slots, max(2**12, store.num_words // 4))
    first_slots = 2 ** (first_slots.bit_length() - 1)
    keys: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    to_do = [(0, 0)]
    while to_do:
        bits, part = to_do.pop()
        table, count = np.zeros((first_slots, 2), np.int64), 0
        for block in store.reported_blocks("counting pairs of words", progress):
            block_ranks = ranks[block.ids]
            row, place = 0, 0
            while True:
                row, place, count = count_pairs(
                    block.row_splits, block_ranks, block.first_row, row, place, table, count, seed, bits, part
                )
                if row == len(block.labels):
                    break
                slots = 2 * len(table)
                if slots > most_slots and bits < PART_BITS:
                    slots = len(table)
                    to_do.append((bits + 1, part | 1 << bits))
                    bits += 1
                table, count = refill(table, slots, seed, bits, part)
        frequent = table[(table[:, 1] & 0xFFFFFFFF) >= min_df]
        keys.append(frequent[:, 0])
        rows.append((frequent[:, 1] & 0xFFFFFFFF).astype(np.int32))
    return np.concatenate(keys), np.concatenate(rows)


def _spill_ngrams(store: TokenStore, ranks: np.ndarray, index: _NgramIndex, progress: Progress | None) -> RaggedFile:
    """The kept n-grams of every row, on disk: found and sorted once, read by both passes that follow."""
    found = RaggedFile(store.scratch, "ngrams")
    for block in store.reported_blocks("finding n-grams", progress):
        found.append(*index.find(block.row_splits, ranks[block.ids]))
    return found


def _scores(store: TokenStore, found: RaggedFile, idf: np.ndarray, progress: Progress | None) -> np.ndarray:
    """F value of each kept n-gram, in as many walks over the rows as the sums by class need memory."""
    present = np.flatnonzero(store.class_sizes)
    class_numbers = np.zeros(len(store.class_sizes), np.int32)
    class_numbers[present] = np.arange(len(present))
    at_once = max(1, store.memory_bytes // (2 * (16 * len(present) + 64)))  # 64: what `f_scores` itself takes
    scores = np.empty(len(idf))
    for first in range(0, len(idf), at_once):
        sums = np.zeros((min(at_once, len(idf) - first), len(present), 2))
        for block in store.reported_blocks("testing n-grams", progress, found):
            add_class_sums(block.row_splits, block.ids, class_numbers[block.labels], idf, first, sums)
        scores[first : first + len(sums)] = f_scores(sums, store.class_sizes[present])
    return scores


def _training_rows(store: TokenStore, found: RaggedFile, vectorizer: NgramVectorizer) -> Iterator[Rows]:
    for block in store.blocks(found):
        yield Rows(*weigh_rows(block.row_splits, block.ids, vectorizer._idf, vectorizer._columns), block.labels)
