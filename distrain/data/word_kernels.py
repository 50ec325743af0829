"""Byte kernels of the tokenizer: fold and cut text into words, and number words in a hash table.

Decides: nothing but the layout of the table. Never: checks its input, keeps state.

    pool, ends, hashes, row_splits = split_words(code_points, text_ends, starts, lengths, folded, key)
    done, count = look_up(pool, ends, hashes, 0, slots, known_pool, known_ends, count, True, ids)

A table's slot is int64: 31 bits of the word's hash << 32 | its number + 1; 0 is free. Words lie in `pool`, uint8, one
after the other, and `ends`, int64, says where each ends.
"""

from __future__ import annotations

import numpy as np

from distrain.data.compiled import compiled


@compiled
def _mix(state: np.uint64, byte: np.uint8, key: np.uint64) -> np.uint64:
    state = (state ^ np.uint64(byte)) * key
    return state ^ (state >> np.uint64(32))


@compiled
def hash_words(pool: np.ndarray, ends: np.ndarray, key: np.uint64) -> np.ndarray:
    """The hash of each word, int64 of 31 bits, as `split_words` makes it."""
    hashes = np.empty(len(ends), np.int64)
    start = 0
    for number in range(len(ends)):
        state = key
        for at in range(start, ends[number]):
            state = _mix(state, pool[at], key)
        hashes[number] = np.int64(state >> np.uint64(33))
        start = ends[number]
    return hashes


@compiled
def split_words(
    code_points: np.ndarray,
    text_ends: np.ndarray,
    fold_starts: np.ndarray,
    fold_lengths: np.ndarray,
    fold_pool: np.ndarray,
    key: np.uint64,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fold texts and cut them into words.

    Args:
        code_points: uint32: all texts, one after the other.
        text_ends: int64 `[n]`: where each text ends in `code_points`.
        fold_starts: int32: for each code point, where its folded form starts in `fold_pool`;
        fold_lengths: uint8: how many bytes it has.
        fold_pool: uint8: folded forms in UTF-8; a space ends a word.
        key: odd: keys the hash.

    Returns:
        pool uint8 and ends int64 of the words, their hashes int64, and row_splits int64 `[n + 1]` over words.
    """
    room = 0
    for code_point in code_points:
        room += fold_lengths[code_point]
    pool = np.empty(room, np.uint8)
    # A word takes two bytes or more, so there are no more words than this.
    ends = np.empty(room // 2 + 1, np.int64)
    hashes = np.empty(room // 2 + 1, np.int64)
    row_splits = np.zeros(len(text_ends) + 1, np.int64)
    words, used, characters = 0, 0, 0  # `used` counts bytes of whole words and of the word under way
    state = key
    word_start, at = 0, 0
    for row in range(len(text_ends)):
        while at <= text_ends[row]:
            # The end of a text acts as a space.
            code_point = code_points[at] if at < text_ends[row] else np.uint32(32)
            at += 1
            start = fold_starts[code_point]
            for place in range(start, start + fold_lengths[code_point]):
                byte = fold_pool[place]
                if byte != 32:
                    pool[used] = byte
                    used += 1
                    characters += (byte & 0xC0) != 0x80  # not a continuation byte
                    state = _mix(state, byte, key)
                elif characters:
                    if characters > 1:
                        ends[words] = used
                        hashes[words] = np.int64(state >> np.uint64(33))
                        words += 1
                        word_start = used
                    used = word_start
                    characters = 0
                    state = key
        at = text_ends[row]
        row_splits[row + 1] = words
    return pool[:used], ends[:words], hashes[:words], row_splits


@compiled
def look_up(
    new_pool: np.ndarray,
    new_ends: np.ndarray,
    hashes: np.ndarray,
    first: int,
    slots: np.ndarray,
    pool: np.ndarray,
    ends: np.ndarray,
    count: int,
    add: bool,
    ids: np.ndarray,
) -> tuple[int, int]:
    """Number words from `first` on until one does not fit.

    Args:
        new_pool: uint8: the words' bytes;
        new_ends: int64: where each ends;
        hashes: int64: the hash of each.
        first: word to begin at.
        slots: the table, at most half full; changed in place, as are the next two.
        pool: uint8: room for the bytes of known words;
        ends: int64: room for their ends.
        count: words in the table.
        add: number unknown words; otherwise they are -1.
        ids: int32, as long as `new_ends`: filled with the words' numbers.

    Returns:
        (words done, words in the table)
    """
    mask = len(slots) - 1
    for number in range(first, len(new_ends)):
        start = new_ends[number - 1] if number else 0
        size = new_ends[number] - start
        slot = hashes[number] & mask
        while True:
            entry = slots[slot]
            if entry == 0:
                if not add:
                    ids[number] = -1
                    break
                used = ends[count - 1] if count else 0
                if 2 * (count + 1) > len(slots) or count == len(ends) or used + size > len(pool):
                    return number, count
                pool[used : used + size] = new_pool[start : start + size]
                ends[count] = used + size
                slots[slot] = hashes[number] << 32 | (count + 1)
                ids[number] = count
                count += 1
                break
            if entry >> 32 == hashes[number]:
                known = (entry & 0xFFFFFFFF) - 1
                known_start = ends[known - 1] if known else 0
                if ends[known] - known_start == size:
                    same = 0
                    while same < size and pool[known_start + same] == new_pool[start + same]:
                        same += 1
                    if same == size:
                        ids[number] = known
                        break
            slot = (slot + 1) & mask
    return len(new_ends), count


@compiled
def rehash(slots: np.ndarray, size: int) -> np.ndarray:
    """The same table in `size` slots, a power of two."""
    larger = np.zeros(size, np.int64)
    for entry in slots:
        if entry:
            slot = (entry >> 32) & (size - 1)
            while larger[slot]:
                slot = (slot + 1) & (size - 1)
            larger[slot] = entry
    return larger
