"""The F-test that chooses n-grams, by what the labels of the rows are: classes, sets of labels, or numbers.

Decides: which sums a test keeps, and how many n-grams it tests at a time. Never: how scores follow from sums
(`f_test.py`), or which n-grams are chosen (`choose_ngrams.py`).

    test = feature_test(store, index, weights, RowGroups.of_classes(num_labels))
    if test.looks_first:
        test.look(blocks)                        # at all rows
    count = test.begin(0, 1000)                  # n-grams 0 .. count - 1
    test.add(block)                              # of rows
    scores = test.scores()

Sums are whole numbers, so that they do not depend on how processes divide the rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import numpy as np

from distrain.text.array_exchange import all_gather_arrays, all_to_all_arrays
from distrain.text.vectorizers.f_test import class_scores, label_scores, least_rows, number_scores
from distrain.text.vectorizers.group_sums import SLOT_BYTES, GroupSums, is_small, room_of
from distrain.text.vectorizers.ngram_index import NgramIndex
from distrain.text.vectorizers.tfidf_kernels import add_group_sums, add_product_sums
from distrain.text.vectorizers.token_store import TokenBlock, TokenStore

_LINE_BYTES = 96  # of an n-gram's scores and offsets
_PART = 3  # a test may take memory / 3


@dataclass(frozen=True)
class RowGroups:
    """The groups of rows that labels stand for.

    Attributes:
        splits: int64 `[label numbers + 1]`: number `i` stands for `items[splits[i]:splits[i + 1]]`.
        items: int32: classes, or labels.
        num_groups: number of classes or labels.
        are_classes: whether each row is of one class; else a row has any number of labels.
    """

    splits: np.ndarray
    items: np.ndarray
    num_groups: int
    are_classes: bool

    @staticmethod
    def of_classes(num_classes: int) -> RowGroups:
        """Return the groups of rows whose label number is their class."""
        return RowGroups(np.arange(num_classes + 1), np.arange(num_classes, dtype=np.int32), num_classes, True)

    def sizes(self, rows_by_number: np.ndarray) -> np.ndarray:
        """Return the rows of each group, int64, from the rows of each label number."""
        rows = np.zeros(len(self.splits) - 1, np.int64)
        rows[: len(rows_by_number)] = rows_by_number
        sizes = np.zeros(self.num_groups, np.int64)
        np.add.at(sizes, self.items, np.repeat(rows, np.diff(self.splits)))
        return sizes


@dataclass(frozen=True)
class RowNumbers:
    """Labels that are numbers: the mean and the standard deviation over all training rows."""

    mean: float
    deviation: float


Targets = RowGroups | RowNumbers


class FeatureTest(Protocol):
    """An F-test of n-grams against the labels of rows; all processes of the store's group make the same calls."""

    looks_first: bool  # whether `look` must see all rows before the first `begin`

    def look(self, blocks: Iterable[TokenBlock]) -> None:
        """Count what rows of n-gram numbers will take."""

    def begin(self, first: int, last: int) -> int:
        """Begin sums for n-grams first .. `last` - 1, or as many as fit into memory; return the end."""

    def add(self, block: TokenBlock) -> None:
        """Add rows of n-gram numbers."""

    def scores(self) -> np.ndarray:
        """Return the scores of the n-grams, float64, on each process."""

    def least_rows(self, score: float) -> int:
        """Return a number of rows below which no n-gram has this score; see `f_test.least_rows`."""


def feature_test(store: TokenStore, index: NgramIndex, weights: np.ndarray, targets: Targets | None) -> FeatureTest:
    """Return the test for the labels of `store`; by default a label is the number of a class.

    Args:
        store: the training rows.
        index: the n-grams.
        weights: weight of an n-gram in 0, 1, 2, ... rows.
        targets: what the labels are.
    """
    if isinstance(targets, RowNumbers):
        return _NumberTest(store, index, weights, targets)
    return _GroupTest(store, index, weights, targets or RowGroups.of_classes(len(store.class_sizes)))


def _scale(store: TokenStore) -> float:
    return 2.0 ** (62 - store.num_rows.bit_length())  # values and their squares are at most 1


class _GroupTest:
    def __init__(self, store: TokenStore, index: NgramIndex, weights: np.ndarray, groups: RowGroups) -> None:
        self._store, self._index, self._weights = store, index, weights
        self._is_class_test = groups.are_classes
        sizes = groups.sizes(store.class_sizes)
        if groups.are_classes:
            present = np.flatnonzero(sizes)
            numbers = np.zeros(len(sizes), np.int32)
            numbers[present] = np.arange(len(present))
            self._sizes, self._splits, self._items = sizes[present], groups.splits, numbers[groups.items]
            self._num_groups = len(present)
        else:  # one more group holds all rows
            lengths = np.diff(groups.splits)
            self._items = np.insert(groups.items, groups.splits[1:], groups.num_groups).astype(np.int32)
            self._splits = np.concatenate([[0], (lengths + 1).cumsum()])
            self._sizes, self._num_groups = sizes, groups.num_groups + 1
        self._memberships = index.row_counts  # of each n-gram in groups, if each row belongs to one
        self.looks_first = not groups.are_classes and not is_small(self._num_groups)

    def look(self, blocks: Iterable[TokenBlock]) -> None:
        # Rows differ: one row with thousands of labels must not make room for thousands in the line of each n-gram.
        own, set_sizes = np.zeros(len(self._index), np.int64), np.diff(self._splits)
        for block in blocks:
            np.add.at(own, block.ids, np.repeat(set_sizes[block.labels], np.diff(block.row_splits)))
        group, scratch = self._store.group, self._store.scratch
        total = reduce(np.add, all_to_all_arrays(group, scratch, "memberships", own))
        self._memberships = np.concatenate(all_gather_arrays(group, scratch, "memberships", total))

    def begin(self, first: int, last: int) -> int:
        budget = self._store.memory_bytes // _PART
        last = min(last, first + max(1, budget // _LINE_BYTES))
        room = room_of(self._memberships[first:last], self._num_groups)
        fitting = np.searchsorted((room * SLOT_BYTES + _LINE_BYTES).cumsum(), budget, side="right")
        room = room[: max(1, int(fitting))]
        self._first, self._sums = first, GroupSums.empty(room, self._num_groups)
        return first + len(room)

    def add(self, block: TokenBlock) -> None:
        rows = block.row_splits, block.ids, block.labels, self._splits, self._items
        sums = self._sums.num_groups, self._sums.offsets, self._sums.groups, self._sums.sums
        add_group_sums(*rows, self._index.row_counts, self._weights, self._first, _scale(self._store), *sums)

    def scores(self) -> np.ndarray:
        store, scale = self._store, _scale(self._store)
        own = self._sums.reduce_scatter(store.group, store.scratch)
        if self._is_class_test:
            scores = class_scores(own, self._sizes, scale=scale)
        else:
            scores = label_scores(own, self._sizes, store.num_rows, scale=scale)
        return np.concatenate(all_gather_arrays(store.group, store.scratch, "scores", scores))

    def least_rows(self, score: float) -> int:
        if self._is_class_test:
            return least_rows(score, self._sizes)
        rest = self._store.num_rows - self._sizes
        smaller = np.minimum(self._sizes, rest)[(self._sizes > 0) & (rest > 0)]
        return least_rows(score, np.array([size := smaller.min(), self._store.num_rows - size])) if len(smaller) else 0


class _NumberTest:
    looks_first = False

    def __init__(self, store: TokenStore, index: NgramIndex, weights: np.ndarray, numbers: RowNumbers) -> None:
        self._store, self._index, self._weights, self._numbers = store, index, weights, numbers

    def look(self, blocks: Iterable[TokenBlock]) -> None:
        pass

    def begin(self, first: int, last: int) -> int:
        last = min(last, first + max(1, self._store.memory_bytes // (_PART * _LINE_BYTES)))
        self._first, self._sums = first, np.zeros((last - first, 3), np.int64)
        return last

    def add(self, block: TokenBlock) -> None:
        targets = (block.labels.astype(np.float64) - self._numbers.mean) / self._numbers.deviation
        counts = self._index.row_counts
        rows = block.row_splits, block.ids, targets, counts, self._weights
        add_product_sums(*rows, self._first, _scale(self._store), self._sums)

    def scores(self) -> np.ndarray:
        store = self._store
        total = reduce(np.add, all_to_all_arrays(store.group, store.scratch, "sums", self._sums))
        scores = number_scores(total, store.num_rows, scale=_scale(store))
        return np.concatenate(all_gather_arrays(store.group, store.scratch, "scores", scores))

    def least_rows(self, score: float) -> int:
        return 0  # a row far from the mean can lift the score of a rare n-gram
