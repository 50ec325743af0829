"""The kept words: merged from the counts of all dictionaries, chosen and put in order.

Decides: how counts are merged. Never: what a word is, or how often a word must occur (the learners decide).

    words, ranks = kept_words(store, lambda words: words.row_counts >= 2)
    words = words.select(alphabetical(words))                # the same for any number of processes
    store.renumber(word_ranks(store, words))

Each process merges some parts of the dictionaries, one at a time. Then all processes gather the kept words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from distrain.text.array_exchange import all_gather_arrays
from distrain.text.vectorizers.spilled_words import PARTS, CountedWords, load_parts
from distrain.text.vectorizers.token_store import TokenStore
from distrain.text.vectorizers.tokenizer import Words, WordTable


def kept_words(store: TokenStore, choose: Callable[[CountedWords], np.ndarray]) -> CountedWords:
    """Return the chosen words of all rows of the group, in no order.

    Args:
        store: a finished store.
        choose: function that returns a mask over its words, which are all words or one part of all words.
    """
    kept = [words.select(np.flatnonzero(choose(words))) for words in _merged(store)]
    own = _joined(kept)
    arrays = [
        all_gather_arrays(store.group, store.scratch, f"kept-{name}", array) for name, array in own._asdict().items()
    ]
    return _joined([CountedWords(*fields) for fields in zip(*arrays, strict=True)])


def alphabetical(words: CountedWords) -> np.ndarray:
    """Return the indices of the words in UTF-8 order, int64 `[n]`."""
    first = np.concatenate([[0], words.ends[:-1]])
    # Words compare as their units do. Three units distinguish nearly all words; Python sorts the remaining words.
    columns = [
        np.where(first + unit < words.ends, words.units[np.minimum(first + unit, len(words.units) - 1)], 0)
        for unit in range(3)
    ]
    order = np.lexsort(columns[::-1])
    same = np.logical_and.reduce([column[order][1:] == column[order][:-1] for column in columns])
    if same.any():
        groups = np.concatenate([[0], np.cumsum(~same)])
        for group in np.unique(groups[1:][same]).tolist():
            indices = order[groups == group]
            texts = Words.from_units(*words.select(indices)[:2]).to_list()
            order[groups == group] = indices[sorted(range(len(texts)), key=texts.__getitem__)]
    return order


def word_ranks(store: TokenStore, words: CountedWords) -> list[np.ndarray]:
    """Return an int32 array for each dictionary of the store: the index in `words` of each word, -1 for none."""
    table = WordTable()
    table.add(words.units, words.ends)
    ranks = []
    for run in store.runs():
        ranks.append(np.empty(len(run.ends), np.int32))
        ranks[-1][run.numbers] = table.add(run.units, run.ends, add=False)
    return ranks


def _merged(store: TokenStore) -> Iterator[CountedWords]:
    """Yield the words and their counts in all rows of the group, for the parts that this process merges."""
    if store.only_run:
        yield store.only_run
        return
    parts_of = [load_parts(stem) for stem in store.run_stems()]
    for part in range(store.group.rank, PARTS, store.group.size):
        table = WordTable()
        runs = [part_of(part) for part_of in parts_of]
        indices = [table.add(run.units, run.ends) for run in runs]
        row_counts, counts = np.zeros(len(table), np.int64), np.zeros(len(table), np.int64)
        for run, index in zip(runs, indices, strict=True):
            row_counts[index] += run.row_counts  # a run holds a word at most once
            counts[index] += run.counts
        yield CountedWords(*table.units, row_counts, counts, np.arange(len(table)))


def _joined(parts: list[CountedWords]) -> CountedWords:
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part.units) for part in parts)])
    ends = np.concatenate([part.ends + start for part, start in zip(parts, starts, strict=False)])
    return CountedWords(
        np.concatenate([part.units for part in parts]),
        ends,
        *(np.concatenate(arrays) for arrays in list(zip(*parts, strict=True))[2:]),
    )
