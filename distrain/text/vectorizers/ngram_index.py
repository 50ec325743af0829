"""An index that finds the kept n-grams in rows of words.

Decides: how n-grams are numbered while rows are walked. Never: which n-grams are kept or chosen.

    index = NgramIndex(keys, row_counts, num_words)          # keys: ascending, see `ngram_kernels`
    row_splits, numbers = index.find(row_splits, ranks)
    keys = index.keys[numbers]

The n-gram in the most rows has the smallest number. Frequent n-grams therefore lie close together in memory, and a
bound on rows is a bound on numbers. The index takes 17 to 23 bytes an n-gram, and up to 28 if there are few n-grams.
"""

from __future__ import annotations

import numpy as np

from distrain.text.vectorizers.ngram_kernels import by_falling_rows, find_ngrams, find_pairs, index_ngrams
from distrain.text.vectorizers.tokenizer import random_key

_MANY = 2**22  # n-grams; from here on memory matters more than speed


class NgramIndex:
    """Finds kept n-grams, and numbers them.

    Args:
        keys: int64, ascending: the kept n-grams.
        row_counts: int32, as long as `keys`: number of rows that hold each n-gram.
        num_words: number of kept words; all ranks in `keys` are smaller.

    Attributes:
        keys: int64: the n-grams, ordered by number.
        row_counts: int32, descending: number of rows with each n-gram, ordered by number.
    """

    def __init__(self, keys: np.ndarray, row_counts: np.ndarray, num_words: int) -> None:
        self.keys, self.row_counts = by_falling_rows(keys, row_counts)
        self._seed = random_key()
        room = 2 * len(keys) if len(keys) < _MANY else 4 * len(keys) // 3
        self._unigrams, self._slots = index_ngrams(self.keys, num_words, 2 ** room.bit_length(), self._seed)

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, row_splits: np.ndarray, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return row splits and n-gram numbers (int32). Numbers ascend in a row, one for each occurrence."""
        found = find_ngrams(row_splits, ranks, self._unigrams, self.keys, self._slots, self._seed)
        found.sort()
        row_starts = np.arange(len(row_splits), dtype=np.int64) << 32
        return np.searchsorted(found, row_starts), found.astype(np.int32)  # the lower 32 bits hold the number

    def numbers(self, keys: np.ndarray) -> np.ndarray:
        """Return the numbers of kept n-grams, int32."""
        return np.where(
            keys & 0xFFFFFFFF, find_pairs(keys, self.keys, self._slots, self._seed), self._unigrams[keys >> 32]
        )
