"""Row kernels over word ranks: count pairs of words, and find n-grams.

Decides: the layout of keys and tables. Never: checks its input, keeps state, weighs rows (`tfidf_kernels.py`).

    keys = np.array([0 << 32, pair_key(0, 1), 1 << 32])      # "new", "new york", "york"
    unigrams, slots = index_ngrams(keys, 2, 8, seed)
    found = find_ngrams(row_splits, ranks, unigrams, keys, slots, seed)

A word's rank is its index among the kept words in UTF-8 order, -1 for a word that is not kept. The key of an n-gram is
a number: `rank << 32` for one word, `rank << 32 | rank of the second + 1` for two. A space sorts before every word
character, so keys sort as the texts of the n-grams do.
"""

from __future__ import annotations

import numpy as np

from distrain.jit import compiled

_AHEAD = 256  # look-ups that the processor has in flight at once


@compiled
def _hash(key: np.int64, seed: np.uint64) -> np.int64:
    state = (np.uint64(key) ^ seed) * np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: Fibonacci hashing
    state = (state ^ (state >> np.uint64(32))) * (seed | np.uint64(1))
    return np.int64((state ^ (state >> np.uint64(29))) >> np.uint64(1))


@compiled
def _shift(slots: int) -> int:
    """Return the right shift that makes a slot of a 63-bit hash.

    A slot is the top bits of the hash, so that slots keep their order, and reads are sequential, when a table grows.
    """
    bits = 0
    while 1 << bits < slots:
        bits += 1
    return 63 - bits


@compiled
def pair_key(first: np.int32, second: np.int32) -> np.int64:
    """Return the key of the n-gram of two words; the arguments are ranks."""
    return np.int64(first) << 32 | (np.int64(second) + 1)


@compiled
def _pair_keys(row_splits: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Return the key of the pair that begins at each index, int64 `[len(ranks)]`; 0 if no pair begins there."""
    keys = np.empty(len(ranks), np.int64)
    for at in range(len(ranks) - 1):
        keys[at] = pair_key(ranks[at], ranks[at + 1]) if ranks[at] >= 0 and ranks[at + 1] >= 0 else 0
    for row in range(len(row_splits) - 1):
        if row_splits[row + 1] > row_splits[row]:
            keys[row_splits[row + 1] - 1] = 0
    return keys


@compiled
def partition_pairs(
    row_splits: np.ndarray, ranks: np.ndarray, part_of: np.ndarray, num_parts: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of neighbouring words in rows, grouped by the part of their first word.

    Args:
        row_splits: int64 `[n + 1]`.
        ranks: int32 `[row_splits[-1]]`: ranks of the words.
        part_of: uint16: part of each first word, by rank.
        num_parts: number of parts.

    Returns:
        The keys, int64, part by part, each part in the order of the rows, and the number of keys of each part, int64
        `[num_parts]`. The top bit of a key is set (the key is negative) if the key is the first of its row.
    """
    keys = _pair_keys(row_splits, ranks)
    sizes = np.zeros(num_parts, np.int64)
    for key in keys:
        sizes[part_of[key >> 32]] += key > 0
    ends = sizes.cumsum()
    used, last_rows = ends - sizes, np.full(num_parts, -1, np.int64)
    pairs = np.empty(ends[-1], np.int64)
    for row in range(len(row_splits) - 1):
        for at in range(row_splits[row], row_splits[row + 1]):
            if keys[at]:
                part = part_of[keys[at] >> 32]
                pairs[used[part]] = keys[at] | np.int64(last_rows[part] != row) << 63
                used[part] += 1
                last_rows[part] = row
    return pairs, sizes


@compiled
def count_pairs(pairs: np.ndarray, row: int, table: np.ndarray, count: int, seed: np.uint64) -> tuple[int, int]:
    """Count the rows that hold each pair.

    Args:
        pairs: keys of one part, as `partition_pairs` returns them.
        row: number of the preceding row, from 1; 0 at the start.
        table: int64 `[slots, 2]`, where `slots` is a power of two with room for all pairs. Column 0 is the key, or 0
            in a free slot. Column 1 is (number of the last row with the key) << 32 | (rows with the key).
        count: number of taken slots before this call.
        seed: seed of the hash.

    Returns:
        The number of taken slots after this call, and the number of the last row.
    """
    mask, shift = len(table) - 1, _shift(len(table))
    for pair in pairs:
        row += pair < 0
        key = pair & 0x7FFFFFFFFFFFFFFF
        slot = _hash(key, seed) >> shift
        while table[slot, 0] != key and table[slot, 0] != 0:
            slot = (slot + 1) & mask
        # No branches: every second pair is new, and the processor cannot predict which.
        count += table[slot, 0] == 0
        table[slot, 0] = key
        rows = table[slot, 1]
        table[slot, 1] = row << 32 | (rows & 0xFFFFFFFF) + (rows >> 32 != row)
    return count, row


@compiled
def refill(table: np.ndarray, larger: np.ndarray, seed: np.uint64) -> None:
    """Copy the pairs of `table` into the empty table `larger`."""
    mask, shift = len(larger) - 1, _shift(len(larger))
    for taken in range(len(table)):
        if table[taken, 0]:
            slot = _hash(table[taken, 0], seed) >> shift
            while larger[slot, 0]:
                slot = (slot + 1) & mask
            larger[slot, 0] = table[taken, 0]
            larger[slot, 1] = table[taken, 1]


@compiled
def take_pairs(table: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of a table in at least `least` rows, int64, and the number of rows with each pair, int32."""
    number = 0
    for slot in range(len(table)):
        number += table[slot, 1] & 0xFFFFFFFF >= least
    keys, rows = (
        np.empty(number + 1, np.int64),
        np.empty(number + 1, np.int32),
    )  # the loop without branches also writes pairs that it drops
    used = 0
    for slot in range(len(table)):
        keys[used], rows[used] = table[slot, 0], table[slot, 1] & 0xFFFFFFFF
        used += table[slot, 1] & 0xFFFFFFFF >= least
    return keys[:used], rows[:used]


@compiled
def _number_bits(num_keys: int) -> int:
    """Return the bits of a slot for a number + 1. The other bits hold a part of the hash that differs for most keys."""
    bits = 1
    while 1 << bits <= num_keys:
        bits += 1
    return bits


@compiled
def by_falling_rows(keys: np.ndarray, row_counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort n-grams by descending row count; equal counts keep their order. Return keys and row counts."""
    starts = np.zeros(row_counts.max() + 2, np.int32)
    for rows in row_counts:
        starts[rows] += 1
    start = 0
    for rows in range(len(starts) - 1, -1, -1):
        starts[rows], start = start, start + starts[rows]
    ordered_keys, ordered_rows = np.empty_like(keys), np.empty_like(row_counts)
    for index in range(len(keys)):
        number = starts[row_counts[index]]
        starts[row_counts[index]] += 1
        ordered_keys[number], ordered_rows[number] = keys[index], row_counts[index]
    return ordered_keys, ordered_rows


@compiled
def index_ngrams(keys: np.ndarray, num_words: int, size: int, seed: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    """Build tables that find words by rank, and pairs by hash in `size` slots, a power of two.

    Returns:
        The number of each word (its index in `keys`), int32 `[num_words]`, -1 for none, and the hash table of pairs,
        uint32 `[size]`. A slot holds bits of the hash, followed by number + 1; a free slot holds 0.
    """
    unigrams, slots = np.full(num_words, -1, np.int32), np.zeros(size, np.uint32)
    shift, bits = _shift(size), _number_bits(len(keys))
    for number in range(len(keys)):
        if keys[number] & 0xFFFFFFFF:
            code = _hash(keys[number], seed)
            slot = code >> shift
            while slots[slot]:
                slot = (slot + 1) & (size - 1)
            slots[slot] = (code << bits | (number + 1)) & 0xFFFFFFFF
        else:
            unigrams[keys[number] >> 32] = number
    return unigrams, slots


@compiled
def find_pairs(pairs: np.ndarray, keys: np.ndarray, slots: np.ndarray, seed: np.uint64) -> np.ndarray:
    """Return the number of each pair, int32; -1 for a pair that is not kept, and for key 0.

    Args:
        pairs: int64: keys; 0 stands for no pair.
        keys: int64: the kept n-grams, ordered by number.
        slots: hash table of pairs that `index_ngrams` built from `keys`.
        seed: the seed of `slots`.
    """
    mask, shift, bits = len(slots) - 1, _shift(len(slots)), _number_bits(len(keys))
    number_mask, print_mask = (1 << bits) - 1, 0xFFFFFFFF >> bits
    numbers = np.empty(len(pairs), np.int32)
    codes, entries, ahead = np.empty(_AHEAD, np.int64), np.empty(_AHEAD, np.int64), np.empty(_AHEAD, np.int64)
    for first in range(0, len(pairs), _AHEAD):
        size = min(_AHEAD, len(pairs) - first)
        for at in range(size):
            codes[at] = _hash(pairs[first + at], seed)
        for at in range(size):
            entries[at] = slots[codes[at] >> shift]
        for at in range(size):
            may_be = np.int64((entries[at] > 0) & (entries[at] >> bits == codes[at] & print_mask))
            ahead[at] = keys[((entries[at] & number_mask) - 1) * may_be]
        for at in range(size):
            numbers[first + at] = -1
            key, entry, slot = pairs[first + at], entries[at], codes[at] >> shift
            while key and entry:
                number = (entry & number_mask) - 1
                if entry >> bits == codes[at] & print_mask and keys[number] == key:
                    numbers[first + at] = number
                    break
                slot = (slot + 1) & mask
                entry = np.int64(slots[slot])
    return numbers


@compiled
def find_ngrams(
    row_splits: np.ndarray,
    ranks: np.ndarray,
    unigrams: np.ndarray,
    keys: np.ndarray,
    slots: np.ndarray,
    seed: np.uint64,
) -> np.ndarray:
    """Return the kept n-grams of rows, one for each occurrence, in no order.

    Args:
        row_splits: int64 `[n + 1]`.
        ranks: int32 `[row_splits[-1]]`: ranks of the words.
        unigrams: numbers of words that `index_ngrams` built from `keys`.
        keys: int64: the kept n-grams, ordered by number.
        slots: hash table of pairs that `index_ngrams` built from `keys`.
        seed: the seed of `slots`.

    Returns:
        int64: row << 32 | n-gram number. Sorting them gives rows of ascending numbers.
    """
    pairs = find_pairs(_pair_keys(row_splits, ranks), keys, slots, seed)
    found = np.empty(2 * len(ranks) + 1, np.int64)  # the loop without branches also writes n-grams that it drops
    used = 0
    for row in range(len(row_splits) - 1):
        for at in range(row_splits[row], row_splits[row + 1]):
            # No branches: the processor cannot predict which n-grams are kept.
            unigram = unigrams[max(ranks[at], 0)] if ranks[at] >= 0 else -1
            found[used] = row << 32 | max(unigram, 0)
            used += unigram >= 0
            found[used] = row << 32 | max(pairs[at], 0)
            used += pairs[at] >= 0
    return found[:used]
