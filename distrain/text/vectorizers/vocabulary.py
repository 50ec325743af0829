"""Which words are kept: counted in each process and each run, merged, chosen and put in order.

Decides: how counts are merged. Never: what a word is, or how often a word must occur (the learners decide).

    words, ranks = kept_words(store, lambda words: words.row_counts >= 2)
    words = words.select(alphabetical(words))                # the same, whoever counted
    store.renumber(word_ranks(store, words))

Each process merges some of the parts, one at a time; then all processes gather the kept words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from distrain.text.array_exchange import all_gather_arrays
from distrain.text.vectorizers.spilled_words import PARTS, CountedWords, load_parts
from distrain.text.vectorizers.token_store import TokenStore
from distrain.text.vectorizers.tokenizer import Words, WordTable


def kept_words(store: TokenStore, choose: Callable[[CountedWords], np.ndarray]) -> CountedWords:
    """The chosen words of all rows of the group, in no order.

    Args:
        store: finished.
        choose: mask over the words it is given: all of them, or one part of all.
    """
    kept = [words.select(np.flatnonzero(choose(words))) for words in _merged(store)]
    own = _joined(kept)
    arrays = [
        all_gather_arrays(store.group, store.scratch, f"kept-{name}", array) for name, array in own._asdict().items()
    ]
    return _joined([CountedWords(*share) for share in zip(*arrays, strict=True)])


def alphabetical(words: CountedWords) -> np.ndarray:
    """Places of the words in the order of their UTF-8."""
    first = np.concatenate([[0], words.ends[:-1]])
    # Words compare as their units do. Three of them tell nearly all apart; the rest is left to Python.
    columns = [
        np.where(first + unit < words.ends, words.units[np.minimum(first + unit, len(words.units) - 1)], 0)
        for unit in range(3)
    ]
    order = np.lexsort(columns[::-1])
    same = np.logical_and.reduce([column[order][1:] == column[order][:-1] for column in columns])
    if same.any():
        groups = np.concatenate([[0], np.cumsum(~same)])
        for group in np.unique(groups[1:][same]).tolist():
            places = order[groups == group]
            texts = Words.from_units(*words.select(places)[:2]).to_list()
            order[groups == group] = places[sorted(range(len(texts)), key=texts.__getitem__)]
    return order


def word_ranks(store: TokenStore, words: CountedWords) -> list[np.ndarray]:
    """For each run of the store, the place in `words` of each of its words, int32; -1 where it is not kept."""
    table = WordTable()
    table.add(words.units, words.ends)
    ranks = []
    for run in store.runs():
        ranks.append(np.empty(len(run.ends), np.int32))
        ranks[-1][run.numbers] = table.add(run.units, run.ends, add=False)
    return ranks


def _merged(store: TokenStore) -> Iterator[CountedWords]:
    """Words with their counts in all rows of the group, for the parts that this process merges."""
    if store.only_run:
        yield store.only_run
        return
    parts_of = [load_parts(stem) for stem in store.run_stems()]
    for part in range(store.group.rank, PARTS, store.group.size):
        table = WordTable()
        runs = [part_of(part) for part_of in parts_of]
        places = [table.add(run.units, run.ends) for run in runs]
        row_counts, counts = np.zeros(len(table), np.int64), np.zeros(len(table), np.int64)
        for run, place in zip(runs, places, strict=True):
            row_counts[place] += run.row_counts  # a word is in a run once
            counts[place] += run.counts
        yield CountedWords(*table.units, row_counts, counts, np.arange(len(table)))


def _joined(pieces: list[CountedWords]) -> CountedWords:
    if len(pieces) == 1:
        return pieces[0]
    starts = np.cumsum([0, *(len(piece.units) for piece in pieces)])
    ends = np.concatenate([piece.ends + start for piece, start in zip(pieces, starts, strict=False)])
    return CountedWords(
        np.concatenate([piece.units for piece in pieces]),
        ends,
        *(np.concatenate(arrays) for arrays in list(zip(*pieces, strict=True))[2:]),
    )
