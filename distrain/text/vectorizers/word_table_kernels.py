"""Kernels of the hash table of words: number words, enlarge the table, and select words.

Decides: the layout of the table. Never: checks its input, keeps state, cuts text into words (`tokenizer_kernels.py`).

    row, word, count = number_words(SplitWords(*words), 0, 0, 0, slots, pool, info, count, True, ids)

`number_words` has more than 80 lines, because a split would pass all its local state between functions.
"""

from __future__ import annotations

import numpy as np

from distrain.jit import compiled
from distrain.text.vectorizers.tokenizer_kernels import SplitWords

_AHEAD = 64  # look-ups that the processor has in flight at once


@compiled
def number_words(
    words: SplitWords,
    row: int,
    word: int,
    first_row: int,
    slots: np.ndarray,
    pool: np.ndarray,
    info: np.ndarray,
    count: int,
    add: bool,
    ids: np.ndarray,
) -> tuple[int, int, int]:
    """Number words, and count them, from `word` of `row` on until one does not fit.

    Args:
        words: the words.
        row: index of the row to begin with.
        word: index of the word to begin with, within `row` or at the row's end.
        first_row: number of row 0 among all rows of the table.
        slots: uint64 `[slots, 2]`, a power of two, at most half full, changed in place. Column 0 is the first unit,
            column 1 is 31 bits of hash << 32 | number + 1, or 0 in a free slot.
        pool: uint64, changed in place: the units of known words, and room for more.
        info: int32 `[room + 1, 4]`, changed in place. For each known word, a row holds: start in `pool`; last row with
            the word, plus 1; number of rows with the word; occurrences. The row after the last word holds
            the start of the next word.
        count: number of words in the table.
        add: if True, number unknown words and count all words; if False, unknown words are -1 and nothing changes.
        ids: int32 `[words]`, changed in place: receives the number of each word.

    Returns:
        Row and index of the first word that did not fit, and the number of words in the table. The row equals the
        number of rows if all words fitted.
    """
    mask = len(slots) - 1
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    # Most look-ups miss the nearest cache. A loop without branches lets the processor run many look-ups at once.
    ahead = np.empty(_AHEAD, np.uint64)
    fetched = word
    for at_row in range(row, len(words.row_splits) - 1):
        row_mark = first_row + at_row + 1
        for number in range(max(word, words.row_splits[at_row]), words.row_splits[at_row + 1]):
            if number == fetched:
                fetched = min(number + _AHEAD, len(words.ends))
                for index in range(number, fetched):
                    ahead[index - number] = slots[words.hashes[index] & mask, 1]
                for index in range(fetched - number):
                    ahead[index] = info[max(int(ahead[index] & low) - 1, 0), 2]
            start = words.ends[number - 1] if number else 0
            size = words.ends[number] - start
            code = np.uint64(words.hashes[number])
            slot = words.hashes[number] & mask
            found = -1
            while True:
                entry = slots[slot, 1]
                if entry == 0:
                    break
                if slots[slot, 0] == words.units[start] and entry >> half == code:
                    known = int(entry & low) - 1
                    known_start = info[known, 0]
                    if info[known + 1, 0] - known_start == size:
                        same = 1
                        while same < size and pool[known_start + same] == words.units[start + same]:
                            same += 1
                        if same == size:
                            found = known
                            break
                slot = (slot + 1) & mask
            if add:
                if found < 0:
                    used = info[count, 0]
                    if 2 * (count + 1) > len(slots) or count + 1 == len(info) or used + size > len(pool):
                        return at_row, number, count
                    for at in range(size):
                        pool[used + at] = words.units[start + at]
                    slots[slot, 0] = words.units[start]
                    slots[slot, 1] = code << half | np.uint64(count + 1)
                    found = count
                    count += 1
                    info[found, 1] = info[found, 2] = info[found, 3] = 0
                    info[count, 0] = used + size
                if info[found, 1] != row_mark:
                    info[found, 1] = row_mark
                    info[found, 2] += 1
                info[found, 3] += 1
            ids[number] = found
    return len(words.row_splits) - 1, len(words.ends), count


@compiled
def rehash(slots: np.ndarray, size: int) -> np.ndarray:
    """Return the same table in `size` slots, a power of two."""
    larger = np.zeros((size, 2), np.uint64)
    for index in range(len(slots)):
        if slots[index, 1]:
            slot = np.int64(slots[index, 1] >> np.uint64(32)) & (size - 1)
            while larger[slot, 1]:
                slot = (slot + 1) & (size - 1)
            larger[slot, 0] = slots[index, 0]
            larger[slot, 1] = slots[index, 1]
    return larger


@compiled
def select_words(units: np.ndarray, ends: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the units of the words at `indices`, in that order, and the index behind each word."""
    chosen_ends = np.empty(len(indices), np.int64)
    used = 0
    for number in range(len(indices)):
        start = ends[indices[number] - 1] if indices[number] else 0
        used += ends[indices[number]] - start
        chosen_ends[number] = used
    chosen = np.empty(used, np.uint64)
    used = 0
    for number in range(len(indices)):
        start = ends[indices[number] - 1] if indices[number] else 0
        for at in range(start, ends[indices[number]]):
            chosen[used] = units[at]
            used += 1
    return chosen, chosen_ends
