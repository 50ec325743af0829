"""Row kernels over word ranks and n-gram numbers: count pairs, find n-grams, weigh them, sum them by class.

Decides: nothing but the layout of its tables. Never: checks its input, keeps state.

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

_AHEAD = 256  # look-ups begun at once


@compiled
def _hash(key: np.int64, seed: np.uint64) -> np.int64:
    state = (np.uint64(key) ^ seed) * np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: Fibonacci hashing
    state = (state ^ (state >> np.uint64(32))) * (seed | np.uint64(1))
    return np.int64((state ^ (state >> np.uint64(29))) >> np.uint64(1))


@compiled
def _shift(slots: int) -> int:
    """How far a hash of 63 bits is to be shifted to be a slot: tables grow in order, so that growing is a stream."""
    bits = 0
    while 1 << bits < slots:
        bits += 1
    return 63 - bits


@compiled
def pair_key(first: np.int32, second: np.int32) -> np.int64:
    """The number of the n-gram of two words, by their ranks."""
    return np.int64(first) << 32 | (np.int64(second) + 1)


@compiled
def _pair_keys(row_splits: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """The key of the pair that begins at each place, int64 `[len(ranks)]`; 0 where none does."""
    keys = np.empty(len(ranks), np.int64)
    for at in range(len(ranks) - 1):
        keys[at] = pair_key(ranks[at], ranks[at + 1]) if ranks[at] >= 0 and ranks[at + 1] >= 0 else 0
    for row in range(len(row_splits) - 1):
        if row_splits[row + 1] > row_splits[row]:
            keys[row_splits[row + 1] - 1] = 0
    return keys


@compiled
def part_pairs(
    row_splits: np.ndarray, ranks: np.ndarray, part_of: np.ndarray, num_parts: int
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of neighbouring words in rows, brought together by the part of their first word.

    Args:
        row_splits: int64 `[n + 1]`.
        ranks: int32: the rows' words.
        part_of: uint16: part of each first word, by rank.
        num_parts: number of parts.

    Returns:
        The keys, int64, part after part, each part in the order of the rows. The top bit is set (the key is below 0)
        if the key before belongs to another row. Then the number of keys of each part, int64 `[num_parts]`.
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
        pairs: of one part, as `part_pairs` gives them.
        row: number of the row before, from 1; 0 for none.
        table: int64 `[slots, 2]`, where `slots` is a power of two with room for all pairs. Column 0 is the key, 0 if
            the slot is free. Column 1 is (number of the last row with the key) << 32 | (rows with the key).
        count: slots taken.
        seed: of the hash.

    Returns:
        Slots taken now, and the number of the last row.
    """
    mask, shift = len(table) - 1, _shift(len(table))
    for pair in pairs:
        row += pair < 0
        key = pair & 0x7FFFFFFFFFFFFFFF
        slot = _hash(key, seed) >> shift
        while table[slot, 0] != key and table[slot, 0] != 0:
            slot = (slot + 1) & mask
        # Written without branches, as every second pair is new and the processor cannot guess which.
        count += table[slot, 0] == 0
        table[slot, 0] = key
        rows = table[slot, 1]
        table[slot, 1] = row << 32 | (rows & 0xFFFFFFFF) + (rows >> 32 != row)
    return count, row


@compiled
def refill(table: np.ndarray, larger: np.ndarray, seed: np.uint64) -> None:
    """Bring the pairs of `table` into an empty, larger one."""
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
    """The pairs in at least so many rows, int64, and the rows with each, int32: of a table that `count_pairs` fills."""
    number = 0
    for slot in range(len(table)):
        number += table[slot, 1] & 0xFFFFFFFF >= least
    keys, rows = np.empty(number + 1, np.int64), np.empty(number + 1, np.int32)  # one more, to be written in vain
    used = 0
    for slot in range(len(table)):
        keys[used], rows[used] = table[slot, 0], table[slot, 1] & 0xFFFFFFFF
        used += table[slot, 1] & 0xFFFFFFFF >= least
    return keys[:used], rows[:used]


@compiled
def _number_bits(num_keys: int) -> int:
    """Bits of a slot that hold a number + 1; the others hold bits of the key's hash, which tell most keys apart."""
    bits = 1
    while 1 << bits <= num_keys:
        bits += 1
    return bits


@compiled
def by_falling_rows(keys: np.ndarray, row_counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """N-grams, and the rows with each, ordered by these, the most first; of as many rows the earlier first."""
    starts = np.zeros(row_counts.max() + 2, np.int32)
    for rows in row_counts:
        starts[rows] += 1
    start = 0
    for rows in range(len(starts) - 1, -1, -1):
        starts[rows], start = start, start + starts[rows]
    ordered_keys, ordered_rows = np.empty_like(keys), np.empty_like(row_counts)
    for place in range(len(keys)):
        number = starts[row_counts[place]]
        starts[row_counts[place]] += 1
        ordered_keys[number], ordered_rows[number] = keys[place], row_counts[place]
    return ordered_keys, ordered_rows


@compiled
def index_ngrams(keys: np.ndarray, num_words: int, size: int, seed: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    """Tables by which distinct n-grams are found: words by rank, and pairs by hash in `size` slots, a power of two.

    Returns:
        The number of each word (its index in `keys`), int32 `[num_words]`, -1 for none. Then the hash table of pairs,
        uint32 `[size]`: bits of the hash, followed by number + 1; 0 is a free slot.
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
    """The number of each pair, int32; -1 for a pair that is not kept, and for 0.

    Args:
        pairs: int64: keys, 0 for none.
        keys: int64: the kept n-grams by number.
        slots: `index_ngrams` of `keys`.
        seed: that `slots` was made with.
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
    """The n-grams of rows, each as often as it occurs, in no order.

    Args:
        row_splits: int64 `[n + 1]`.
        ranks: int32: the rows' words.
        unigrams: `index_ngrams` of `keys`, as is `slots`.
        keys: int64: the kept n-grams by number.
        slots: see there.
        seed: that `slots` was made with.

    Returns:
        int64: row << 32 | n-gram number. Sorted, these are rows of ascending n-grams.
    """
    pairs = find_pairs(_pair_keys(row_splits, ranks), keys, slots, seed)
    found = np.empty(2 * len(ranks) + 1, np.int64)  # one more, as what is not found is written and not kept
    used = 0
    for row in range(len(row_splits) - 1):
        for at in range(row_splits[row], row_splits[row + 1]):
            # Written without branches, as the processor cannot guess what is found.
            unigram = unigrams[max(ranks[at], 0)] if ranks[at] >= 0 else -1
            found[used] = row << 32 | max(unigram, 0)
            used += unigram >= 0
            found[used] = row << 32 | max(pairs[at], 0)
            used += pairs[at] >= 0
    return found[:used]


@compiled
def _longest(row_splits: np.ndarray) -> int:
    longest = 0
    for row in range(len(row_splits) - 1):
        longest = max(longest, row_splits[row + 1] - row_splits[row])
    return longest


@compiled
def _weigh(
    features: np.ndarray,
    start: int,
    end: int,
    row_counts: np.ndarray,
    weights: np.ndarray,
    distinct: np.ndarray,
    values: np.ndarray,
) -> int:
    """Fill `distinct` n-grams of one row and their TF-IDF `values`; returns how many."""
    used, squares = 0, 0.0
    while start < end:
        feature, count = features[start], 0
        while start < end and features[start] == feature:
            count += 1
            start += 1
        distinct[used] = feature
        values[used] = count * weights[row_counts[feature]]
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
    row_counts: np.ndarray,
    weights: np.ndarray,
    first: int,
    scale: float,
    sums: np.ndarray,
) -> None:
    """Add each row's TF-IDF values and their squares to the sums of its class.

    Args:
        row_splits: int64 `[n + 1]`.
        features: int32, ascending in a row: as `find_ngrams` returns them.
        labels: `[n]`: class numbers.
        row_counts: int32: rows that hold each n-gram.
        weights: float64: weight of an n-gram by the rows that hold it.
        first: n-gram of the first line of `sums`; n-grams beyond its lines are left out.
        scale: what a value of 1 counts in `sums`.
        sums: int64 `[n-grams, classes, 2]`: sums of values, and of their squares. They are whole numbers, as these
            give the same sum in any order.
    """
    longest = _longest(row_splits)
    distinct, values = np.empty(longest, np.int32), np.empty(longest, np.float64)
    for row in range(len(row_splits) - 1):
        label = labels[row]
        used = _weigh(features, row_splits[row], row_splits[row + 1], row_counts, weights, distinct, values)
        for place in range(used):
            line = distinct[place] - first
            if 0 <= line < len(sums):
                sums[line, label, 0] += np.int64(values[place] * scale + 0.5)
                sums[line, label, 1] += np.int64(values[place] * values[place] * scale + 0.5)


@compiled
def weigh_rows(
    row_splits: np.ndarray, features: np.ndarray, row_counts: np.ndarray, weights: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """TF-IDF values of the chosen n-grams; the norm is over all.

    Args:
        row_splits: int64 `[n + 1]`.
        features: int32, ascending in a row: as `find_ngrams` returns them.
        row_counts: int32: rows that hold each n-gram.
        weights: float64: weight of an n-gram by the rows that hold it.
        columns: int32: column of each n-gram, -1 where it is not chosen; n-grams beyond are not either.

    Returns:
        row_splits int64, columns int32 (ascending in a row), values float32.
    """
    longest = _longest(row_splits)
    distinct, values = np.empty(longest, np.int32), np.empty(longest, np.float64)
    order = np.empty(longest, np.int64)
    chosen_splits = np.zeros(len(row_splits), np.int64)
    chosen = np.empty(len(features), np.int32)
    chosen_values = np.empty(len(features), np.float32)
    kept = 0
    for row in range(len(row_splits) - 1):
        used = _weigh(features, row_splits[row], row_splits[row + 1], row_counts, weights, distinct, values)
        num_chosen = 0
        for place in range(used):
            if distinct[place] >= len(columns):
                break
            order[num_chosen] = np.int64(columns[distinct[place]]) << 32 | place
            num_chosen += columns[distinct[place]] >= 0
        order[:num_chosen].sort()
        for entry in order[:num_chosen]:
            chosen[kept] = entry >> 32
            chosen_values[kept] = values[entry & 0xFFFFFFFF]
            kept += 1
        chosen_splits[row + 1] = kept
    return chosen_splits, chosen[:kept], chosen_values[:kept]
