"""Finds the kept n-grams of each row, and chooses the n-grams of highest score.

Decides: how often rows are walked, and when walks end. Never: what a score is (`feature_tests.py`).

    found, keys = find_and_choose(store, index, None, 20_000, progress)

Each walk over the rows tests some n-grams in the order of their numbers. Walks end when the remaining n-grams are in
too few rows to score as high as the chosen n-grams. The first walk also finds the n-grams. With many labels the first
walk finds and counts n-grams only.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from distrain.text.ragged import RaggedFile
from distrain.text.vectorizers.f_test import best
from distrain.text.vectorizers.feature_tests import Targets, feature_test
from distrain.text.vectorizers.ngram_index import NgramIndex
from distrain.text.vectorizers.token_store import Progress, TokenBlock, TokenStore

_ENOUGH = 2**20  # n-grams in the first test: mostly no other n-gram can score high enough


def ngram_weights(row_counts: np.ndarray, num_rows: int) -> np.ndarray:
    """Return the weight of an n-gram in 0, 1, 2, ... rows, up to the largest row count.

    scikit-learn's smooth IDF, in its order of operations: ln((1 + rows) / (1 + rows with it)) + 1.
    """
    weights = np.arange(1.0, row_counts.max() + 2.0)
    np.divide(num_rows + 1, weights, out=weights)
    return np.add(np.log(weights, out=weights), 1.0, out=weights)


def find_and_choose(
    store: TokenStore, index: NgramIndex, targets: Targets | None, top_k: int, progress: Progress | None
) -> tuple[RaggedFile, np.ndarray]:
    """Spill the kept n-grams of every row of this process; return the file, and the keys of the chosen n-grams.

    Args:
        store: the training rows.
        index: the kept n-grams.
        targets: what the labels of the store are; see `feature_tests.feature_test`.
        top_k: largest number of chosen n-grams.
        progress: function to call repeatedly.
    """
    test = feature_test(store, index, ngram_weights(index.row_counts, store.num_rows), targets)
    found = RaggedFile(store.scratch, f"ngrams-{store.group.rank}")
    if test.looks_first:
        test.look(_found(store, index, found, progress))
    chosen, chosen_scores = np.empty(0, np.int64), np.empty(0)
    first, last = 0, len(index)
    while first < last:
        end = test.begin(first, last if first else min(last, max(top_k, _ENOUGH)))
        if first == 0 and not test.looks_first:
            blocks = _found(store, index, found, progress)
        else:
            blocks = store.reported_blocks("testing n-grams", progress, found)
        for block in blocks:
            test.add(block)
        scores = np.concatenate([chosen_scores, test.scores()])
        keys = np.concatenate([chosen, index.keys[first:end]])
        kept = best(scores, keys, top_k)
        chosen, chosen_scores = keys[kept], scores[kept]
        first = end
        if len(chosen) == top_k:
            last = int(np.count_nonzero(index.row_counts >= test.least_rows(chosen_scores.min())))
    return found, np.sort(chosen)


def _found(store: TokenStore, index: NgramIndex, found: RaggedFile, progress: Progress | None) -> Iterator[TokenBlock]:
    for block in store.reported_blocks("finding n-grams", progress):
        row_splits, ngrams = index.find(block.row_splits, block.ids)
        found.append(row_splits, ngrams)
        yield block._replace(row_splits=row_splits, ids=ngrams)
