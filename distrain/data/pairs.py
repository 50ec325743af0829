"""Which n-grams are kept: the words, and the pairs of neighbouring words that are in enough rows.

Decides: how pairs are counted in bounded memory, and by whom. Never: what a word is, which n-grams become features.

    keys, row_counts = kept_ngrams(store, word_rows, min_df=2)

Pairs are counted in one hash table. When it has taken its share of the memory it is written to disk, in parts, and
counting goes on in an empty one; then each process adds up its share of the parts. A part is a range of first words,
so that the parts' n-grams one after the other are all n-grams in order.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from distrain.data.ngram_kernels import count_pairs, refill, take_pairs
from distrain.data.ragged import append_array, read_array
from distrain.data.team import load_array
from distrain.data.tokens import Progress, TokenStore
from distrain.data.words import random_key

_PARTS = 256
_TABLE_SHARE = 4  # part of the memory that the table may take; half as much again while it grows
_SLOT_BYTES = 16
_LEAST_SLOTS = 2**12


def kept_ngrams(
    store: TokenStore, word_rows: np.ndarray, *, min_df: int, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray]:
    """The kept words, and the pairs of them that are in `min_df` rows.

    Args:
        store: its words renumbered by rank; -1 for one that is not kept.
        word_rows: rows that hold each kept word, by rank.
        min_df: rows that a pair must be in.
        progress: called now and then.

    Returns:
        Keys, int64, ascending, and rows with each, int32: the same in all processes.
    """
    counter = _PairCounter(store, word_rows)
    for block in store.reported_blocks("counting pairs of words", progress):
        counter.add(block.row_splits, block.ids, block.first_row)
    if store.team.size == 1 and not counter.spills:
        pairs, rows, _ = take_pairs(counter.table, min_df, np.zeros(len(word_rows), np.uint8), 1)
        return _with_words(pairs, rows, word_rows, 0, len(word_rows))
    counter.spill()
    return _exchanged(store, counter, word_rows, min_df)


class _PairCounter:
    """The pairs of this process's rows with the rows that hold each.

    Args:
        store: whose rows; for its memory bound, its scratch folder and its team.
        word_rows: rows that hold each word.
    """

    def __init__(self, store: TokenStore, word_rows: np.ndarray) -> None:
        self.spills = 0
        # Parts of about as many words, to be of about as many pairs.
        before = np.cumsum(word_rows, dtype=np.int64) - word_rows
        self.part_of = (before * _PARTS // max(1, int(word_rows.sum(dtype=np.int64)))).astype(np.uint8)
        self._scratch, self._rank = store.scratch, store.team.rank
        self._seed = random_key()
        self._most_slots = 2 ** (store.memory_bytes // (_TABLE_SHARE * _SLOT_BYTES)).bit_length() // 2
        # As text is, about every second pair is new at first; growing costs more than room.
        slots = min(self._most_slots, 2 ** store.own_words.bit_length())
        self.table = np.zeros((max(_LEAST_SLOTS, slots), 2), np.int64)
        self._count = 0

    def add(self, row_splits: np.ndarray, ranks: np.ndarray, first_row: int) -> None:
        """Count the pairs of a block of rows."""
        needed = _slots(self._count + len(ranks))
        if needed > max(self._most_slots, len(self.table)) and self._count:
            self.spill()
            needed = _slots(len(ranks))
        if needed > len(self.table):
            larger = np.zeros((2 ** (needed - 1).bit_length(), 2), np.int64)
            refill(self.table, larger, self._seed)
            self.table = larger
        self._count = count_pairs(row_splits, ranks, first_row, self.table, self._count, self._seed)

    def spill(self) -> None:
        """Write the table to disk and empty it."""
        arrays = take_pairs(self.table, 1, self.part_of, _PARTS)
        for name, array in zip(_NAMES, arrays, strict=True):
            np.save(_file(self._scratch, self._rank, self.spills, name), array, allow_pickle=False)
        self.table[:] = 0
        self._count = 0
        self.spills += 1


def _slots(pairs: int) -> int:
    """Slots for so many pairs: at most three quarters are taken."""
    return pairs * 4 // 3 + 1


_NAMES = ("pairs", "rows", "parts")
_KEPT = {"keys": np.int64, "rows": np.int32}


def _file(scratch: Path, rank: int, spill: int, name: str) -> Path:
    return scratch / f"pairs-{rank}-{spill}.{name}.npy"


def _exchanged(
    store: TokenStore, counter: _PairCounter, word_rows: np.ndarray, min_df: int
) -> tuple[np.ndarray, np.ndarray]:
    """The kept n-grams of all parts: each process adds up its share of them, and all get all."""
    team, scratch = store.team, store.scratch
    spills = [int(count) for count in team.exchange(str(counter.spills).encode())]
    files = [
        tuple(load_array(_file(scratch, rank, spill, name)) for name in _NAMES)
        for rank, count in enumerate(spills)
        for spill in range(count)
    ]
    first_words = np.searchsorted(counter.part_of, np.arange(_PARTS + 1))
    for name in _KEPT:
        _kept_file(scratch, team.rank, name).write_bytes(b"")
    sizes = []
    for part in range(team.rank, _PARTS, team.size):
        slices = [slice(int(ends[part - 1]) if part else 0, int(ends[part])) for _, _, ends in files]
        pairs = np.concatenate([pairs[piece] for (pairs, _, _), piece in zip(files, slices, strict=True)])
        rows = np.concatenate([rows[piece] for (_, rows, _), piece in zip(files, slices, strict=True)])
        kept = _with_words(*_added_up(pairs, rows, min_df), word_rows, *first_words[part : part + 2].tolist())
        for name, array in zip(_KEPT, kept, strict=True):
            append_array(_kept_file(scratch, team.rank, name), array)
        sizes.append(len(kept[0]))
    shares = [json.loads(share) for share in team.exchange(json.dumps(sizes).encode())]
    arrays = []
    for name, dtype in _KEPT.items():
        array = np.empty(sum(map(sum, shares)), dtype)
        used = 0
        with ExitStack() as stack:
            opened = [stack.enter_context(_kept_file(scratch, rank, name).open("rb")) for rank in range(team.size)]
            for part in range(_PARTS):
                size = shares[part % team.size][part // team.size]
                array[used : used + size] = read_array(opened[part % team.size], dtype, size)
                used += size
        arrays.append(array)
    return arrays[0], arrays[1]


def _kept_file(scratch: Path, rank: int, name: str) -> Path:
    return scratch / f"kept-{name}-{rank}"


def _added_up(pairs: np.ndarray, rows: np.ndarray, min_df: int) -> tuple[np.ndarray, np.ndarray]:
    """The different pairs that are in `min_df` rows by all their counts, and these."""
    if not len(pairs):
        return pairs, rows
    order = np.argsort(pairs)
    pairs = pairs[order]
    starts = np.flatnonzero(np.concatenate([[True], pairs[1:] != pairs[:-1]]))
    totals = np.add.reduceat(rows[order], starts)
    frequent = totals >= min_df
    return pairs[starts[frequent]], totals[frequent]


def _with_words(
    pairs: np.ndarray, rows: np.ndarray, word_rows: np.ndarray, first: int, last: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of which the first word has a rank from `first` to below `last`, and these words, by key."""
    keys = np.concatenate([np.arange(first, last, dtype=np.int64) << 32, pairs])
    order = np.argsort(keys)
    return keys[order], np.concatenate([word_rows[first:last], rows])[order].astype(np.int32)
