"""Row kernels over word ranks and n-gram numbers: count pairs, find n-grams, weigh them, sum them by class.

Decides: nothing but the layout of its tables. Never: checks its input, keeps state.

    keys = np.array([0 << 32, pair_key(0, 1), 1 << 32])      # "new", "new york", "york"
    slots = key_slots(keys, 8, seed)
    found = find_ngrams(row_splits, ranks, np.array([0, 2]), keys, slots, seed)

A word's rank is its place among the kept words in UTF-8 order, -1 for a word that is not kept. An n-gram is a
number, its key: `rank << 32` for one word, `rank << 32 | rank of the second + 1` for two. As a space sorts before
every word character, keys sort as the n-grams' text does.
"""

from __future__ import annotations

import numpy as np

from distrain.data.compiled import compiled

PART_BITS = 16  # bits of a key's hash that tell parts of the pairs apart; the others find a slot


@compiled
def _hash(key: np.int64, seed: np.uint64) -> np.int64:
    state = (np.uint64(key) ^ seed) * np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: Fibonacci hashing
    state = (state ^ (state >> np.uint64(32))) * (seed | np.uint64(1))
    return np.int64((state ^ (state >> np.uint64(29))) >> np.uint64(1))


@compiled
def pair_key(first: np.int32, second: np.int32) -> np.int64:
    """The number of the n-gram of two words, by their ranks."""
    return np.int64(first) << 32 | (np.int64(second) + 1)


@compiled
def count_rows_with_word(
    row_splits: np.ndarray, ids: np.ndarray, first_row: int, last: np.ndarray, rows: np.ndarray
) -> None:
    """Add to `rows` (int32 `[words]`) the rows that hold each word; `last` (int32 `[words]`, from -1) is scratch."""
    for row in range(len(row_splits) - 1):
        for place in range(row_splits[row], row_splits[row + 1]):
            word = ids[place]
            if last[word] != first_row + row:
                last[word] = first_row + row
                rows[word] += 1


@compiled
def count_pairs(
    row_splits: np.ndarray,
    ranks: np.ndarray,
    first_row: int,
    row: int,
    place: int,
    table: np.ndarray,
    count: int,
    seed: np.uint64,
    bits: int,
    part: int,
) -> tuple[int, int, int]:
    """Count the rows that hold each pair of neighbouring words, of one part of the pairs, until the table is half full.

    Args:
        row_splits: int64 `[n + 1]`.
        ranks: int32: the rows' words.
        first_row: number of the block's first row.
        row: row of the block to begin at.
        place: place in `ranks` to begin at.
        table: int64 `[slots, 2]`, `slots` a power of two: key (0: free), and the number of the last row with it
            plus 1 << 32 | rows with it.
        count: slots taken.
        seed: of the hash.
        bits: a part is the pairs whose hash ends in these bits:
        part: these.

    Returns:
        (row, place, count): where it stopped; `row` is `n` when the block is done.
    """
    mask = len(table) - 1
    part_mask = (1 << bits) - 1
    for at_row in range(row, len(row_splits) - 1):
        row_mark = first_row + at_row + 1
        for at in range(max(place, row_splits[at_row]), row_splits[at_row + 1] - 1):
            if ranks[at] < 0 or ranks[at + 1] < 0:
                continue
            key = pair_key(ranks[at], ranks[at + 1])
            code = _hash(key, seed)
            if code & part_mask != part:
                continue
            slot = (code >> PART_BITS) & mask
            while table[slot, 0] != key and table[slot, 0] != 0:
                slot = (slot + 1) & mask
            if table[slot, 0] == 0:
                if 2 * (count + 1) > len(table):
                    return at_row, at, count
                table[slot, 0] = key
                table[slot, 1] = row_mark << 32 | 1
                count += 1
            elif table[slot, 1] >> 32 != row_mark:
                table[slot, 1] = row_mark << 32 | (table[slot, 1] & 0xFFFFFFFF) + 1
    return len(row_splits) - 1, 0, count


@compiled
def refill(table: np.ndarray, slots: int, seed: np.uint64, bits: int, part: int) -> tuple[np.ndarray, int]:
    """A table of `slots` slots with the pairs of `table` that belong to the part, and how many they are."""
    refilled = np.zeros((slots, 2), np.int64)
    count = 0
    for taken in range(len(table)):
        key = table[taken, 0]
        code = _hash(key, seed)
        if key and code & ((1 << bits) - 1) == part:
            slot = (code >> PART_BITS) & (slots - 1)
            while refilled[slot, 0]:
                slot = (slot + 1) & (slots - 1)
            refilled[slot] = table[taken]
            count += 1
    return refilled, count


@compiled
def key_slots(keys: np.ndarray, size: int, seed: np.uint64) -> np.ndarray:
    """A hash table of `size` slots, a power of two, over distinct keys: int32, place in `keys` + 1, or 0: free."""
    slots = np.zeros(size, np.int32)
    for place in range(len(keys)):
        slot = (_hash(keys[place], seed) >> PART_BITS) & (size - 1)
        while slots[slot]:
            slot = (slot + 1) & (size - 1)
        slots[slot] = place + 1
    return slots


@compiled
def find_ngrams(
    row_splits: np.ndarray,
    ranks: np.ndarray,
    unigrams: np.ndarray,
    keys: np.ndarray,
    slots: np.ndarray,
    seed: np.uint64,
) -> np.ndarray:
    """The n-grams of rows, each as often as it occurs, in no order.

    Args:
        row_splits: int64 `[n + 1]`.
        ranks: int32: the rows' words.
        unigrams: int32 `[kept words]`: n-gram number of each word, -1 for none.
        keys: int64, ascending: the kept n-grams.
        slots: `key_slots` of `keys`.
        seed: that `slots` was made with.

    Returns:
        int64: row << 32 | n-gram number (place in `keys`). Sorted, these are rows of ascending n-grams.
    """
    mask = len(slots) - 1
    # Most look-ups miss the processor's caches: a loop without branches keeps many on their way at once.
    first = np.empty(len(ranks), np.int32)
    for at in range(len(ranks) - 1):
        first[at] = slots[(_hash(pair_key(ranks[at], ranks[at + 1]), seed) >> PART_BITS) & mask]
    found = np.empty(2 * len(ranks), np.int64)
    used = 0
    for row in range(len(row_splits) - 1):
        end = row_splits[row + 1]
        for at in range(row_splits[row], end):
            if ranks[at] < 0:
                continue
            if unigrams[ranks[at]] >= 0:
                found[used] = row << 32 | unigrams[ranks[at]]
                used += 1
            if at + 1 < end and ranks[at + 1] >= 0 and first[at]:
                key = pair_key(ranks[at], ranks[at + 1])
                number = first[at] - 1
                if keys[number] != key:
                    slot = (_hash(key, seed) >> PART_BITS) & mask
                    while slots[slot] and keys[slots[slot] - 1] != key:
                        slot = (slot + 1) & mask
                    number = slots[slot] - 1
                if number >= 0:
                    found[used] = row << 32 | number
                    used += 1
    return found[:used]


@compiled
def _longest(row_splits: np.ndarray) -> int:
    longest = 0
    for row in range(len(row_splits) - 1):
        longest = max(longest, row_splits[row + 1] - row_splits[row])
    return longest


@compiled
def _weigh(
    features: np.ndarray, start: int, end: int, idf: np.ndarray, distinct: np.ndarray, values: np.ndarray
) -> int:
    """Fill `distinct` n-grams of one row and their TF-IDF `values`; returns how many.

    Their norm is summed upwards, as scikit-learn does, so that values are the same to the last bit.
    """
    used, squares = 0, 0.0
    while start < end:
        feature, count = features[start], 0
        while start < end and features[start] == feature:
            count += 1
            start += 1
        distinct[used] = feature
        values[used] = count * idf[feature]
        squares += values[used] * values[used]
        used += 1
    norm = np.sqrt(squares)
    for place in range(used):
        values[place] /= norm
    return used


@compiled
def add_class_sums(
    row_splits: np.ndarray,
    features: np.ndarray,
    labels: np.ndarray,
    idf: np.ndarray,
    first: int,
    sums: np.ndarray,
) -> None:
    """Add each row's TF-IDF values and their squares to the sums of its class.

    Args:
        row_splits: int64 `[n + 1]`.
        features: int32, ascending in a row: as `find_ngrams` returns them.
        labels: `[n]`: class numbers.
        idf: float64: weight of each n-gram.
        first: n-gram of the first line of `sums`; n-grams beyond its lines are left out.
        sums: float64 `[n-grams, classes, 2]`: sums of values, and of their squares.
    """
    longest = _longest(row_splits)
    distinct, values = np.empty(longest, np.int32), np.empty(longest, np.float64)
    for row in range(len(row_splits) - 1):
        label = labels[row]
        used = _weigh(features, row_splits[row], row_splits[row + 1], idf, distinct, values)
        for place in range(used):
            line = distinct[place] - first
            if 0 <= line < len(sums):
                sums[line, label, 0] += values[place]
                sums[line, label, 1] += values[place] * values[place]


@compiled
def weigh_rows(
    row_splits: np.ndarray, features: np.ndarray, idf: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """TF-IDF values of the chosen n-grams; the norm is over all.

    Args:
        row_splits: int64 `[n + 1]`.
        features: int32, ascending in a row: as `find_ngrams` returns them.
        idf: float64: weight of each n-gram.
        columns: int32: column of each n-gram, -1 where it is not chosen.

    Returns:
        row_splits int64, columns int32 (ascending in a row as `columns` ascends), values float32.
    """
    longest = _longest(row_splits)
    distinct, values = np.empty(longest, np.int32), np.empty(longest, np.float64)
    chosen_splits = np.zeros(len(row_splits), np.int64)
    chosen = np.empty(len(features), np.int32)
    chosen_values = np.empty(len(features), np.float32)
    kept = 0
    for row in range(len(row_splits) - 1):
        used = _weigh(features, row_splits[row], row_splits[row + 1], idf, distinct, values)
        for place in range(used):
            column = columns[distinct[place]]
            if column >= 0:
                chosen[kept] = column
                chosen_values[kept] = values[place]
                kept += 1
        chosen_splits[row + 1] = kept
    return chosen_splits, chosen[:kept], chosen_values[:kept]
