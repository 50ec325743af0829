"""Byte kernels of the tokenizer: fold and cut text into words, and number words in a hash table.

Decides: nothing but the layout of words and of the table. Never: checks its input, keeps state.

    known, words = split_words(raw, starts, ends, ascii_fold, fold, key, room)
    row, word, count = number_words(SplitWords(*words), 0, 0, 0, slots, pool, info, count, True, ids)

A word is its folded UTF-8 in units of eight bytes, as `uint64`. A unit holds its first byte in its highest bits, and
zeros follow the last byte. Words compare as their units do, and one unit is enough for most words. NUL is no word
character, so no two words have the same units.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from distrain.jit import compiled

_SPACE = 32
_AHEAD = 64  # look-ups begun at once


class SplitWords(NamedTuple):
    """Words in text order.

    Attributes:
        units: uint64: all words' units, one after the other.
        ends: int64 `[words]`: where each word ends in `units`.
        hashes: int64 `[words]`: 31 bits each.
        row_splits: int64 `[rows + 1]` over words.
    """

    units: np.ndarray
    ends: np.ndarray
    hashes: np.ndarray
    row_splits: np.ndarray


class Fold(NamedTuple):
    """What each code point becomes.

    Attributes:
        known: bool: whether the next three say it.
        starts: int32: where its folded form starts in `pool`;
        lengths: uint8: how many bytes it has.
        pool: uint8: folded forms in UTF-8; a space ends a word.
    """

    known: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    pool: np.ndarray


@compiled
def _mix(state: np.uint64, unit: np.uint64, key: np.uint64) -> np.uint64:
    # The product carries upwards only, and a short word stands on top of its unit.
    state = (state ^ unit ^ (unit >> np.uint64(32))) * key
    return state ^ (state >> np.uint64(32))


@compiled
def hash_words(units: np.ndarray, ends: np.ndarray, key: np.uint64) -> np.ndarray:
    """The hash of each word, int64 of 31 bits, as `split_words` makes it."""
    hashes = np.empty(len(ends), np.int64)
    start = 0
    for number in range(len(ends)):
        state = key
        for at in range(start, ends[number]):
            state = _mix(state, units[at], key)
        hashes[number] = np.int64(state >> np.uint64(33))
        start = ends[number]
    return hashes


@compiled
def pack_words(pool: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Words as units, and where each ends, of words as bytes: `pool` uint8, `ends` int64."""
    units = np.zeros(len(pool) // 8 + len(ends), np.uint64)
    unit_ends = np.empty(len(ends), np.int64)
    start, used = 0, 0
    for number in range(len(ends)):
        for at in range(start, ends[number]):
            place = used + (at - start) // 8
            units[place] |= np.uint64(pool[at]) << np.uint64(56 - 8 * ((at - start) % 8))
        used += (ends[number] - start + 7) // 8
        unit_ends[number] = used
        start = ends[number]
    return units[:used], unit_ends


@compiled
def _decode(raw: np.ndarray, at: int) -> tuple[int, int]:
    """Code point of the valid UTF-8 sequence of two to four bytes at `at`, and where the next begins."""
    byte = int(raw[at])
    code_point, size = byte & 0x1F, 2
    if byte >= 0xF0:
        code_point, size = byte & 0x07, 4
    elif byte >= 0xE0:
        code_point, size = byte & 0x0F, 3
    for place in range(at + 1, at + size):
        code_point = code_point << 6 | (int(raw[place]) & 0x3F)
    return code_point, at + size


@compiled
def split_words(
    raw: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    ascii_fold: np.ndarray,
    fold: Fold,
    key: np.uint64,
    room: int,
) -> tuple[bool, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Fold texts and cut them into words.

    Args:
        raw: uint8: valid UTF-8, lone surrogates allowed.
        starts: int64 `[n]`: where each text starts in `raw`;
        ends: int64 `[n]`: and ends.
        ascii_fold: uint8 `[256]`: what an ASCII word character becomes; 0 for anything else.
        fold: of all characters.
        key: odd: keys the hash.
        room: bytes that all texts have at most when folded.

    Returns:
        Whether all characters were known, and what `SplitWords` holds; without meaning if not. A plain tuple, as a
        signal that comes while numba makes a named one ends the process.
    """
    # A word takes three bytes or more with what ends it, but for the last of a text.
    most = room // 3 + len(starts) + 1
    units = np.empty(most + room // 8, np.uint64)
    word_ends = np.empty(most, np.int64)
    hashes = np.empty(most, np.int64)
    row_splits = np.zeros(len(starts) + 1, np.int64)
    words, used, characters, word_start = 0, 0, 0, 0
    unit, filled, state = np.uint64(0), 0, key
    eight = np.uint64(8)
    for row in range(len(starts)):
        at, stop = starts[row], ends[row]
        while at <= stop:
            # The end of a text acts as a space.
            byte = raw[at] if at < stop else np.uint8(_SPACE)
            folded = ascii_fold[byte]
            if folded:
                unit = unit << eight | np.uint64(folded)
                filled += 1
                characters += 1
                at += 1
                if filled == 8:
                    units[used] = unit
                    state = _mix(state, unit, key)
                    used += 1
                    unit, filled = np.uint64(0), 0
                continue
            code_point = int(byte)
            if byte < 128:
                at += 1
            else:
                code_point, at = _decode(raw, at)
                if not fold.known[code_point]:
                    return False, (units, word_ends, hashes, row_splits)
            for place in range(fold.starts[code_point], fold.starts[code_point] + fold.lengths[code_point]):
                piece = fold.pool[place]
                if piece != _SPACE:
                    unit = unit << eight | np.uint64(piece)
                    filled += 1
                    characters += (piece & 0xC0) != 0x80  # not a continuation byte
                    if filled == 8:
                        units[used] = unit
                        state = _mix(state, unit, key)
                        used += 1
                        unit, filled = np.uint64(0), 0
                elif characters:
                    if characters > 1:
                        if filled:
                            unit = unit << np.uint64(64 - 8 * filled)
                            units[used] = unit
                            state = _mix(state, unit, key)
                            used += 1
                        word_ends[words] = used
                        hashes[words] = np.int64(state >> np.uint64(33))
                        words += 1
                        word_start = used
                    used = word_start
                    characters, unit, filled, state = 0, np.uint64(0), 0, key
        row_splits[row + 1] = words
    return True, (units[:used], word_ends[:words], hashes[:words], row_splits)


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
        row: row to begin at;
        word: word to begin at, in this row or at its end.
        first_row: number of the first row.
        slots: uint64 `[slots, 2]`, a power of two, at most half full, changed in place. Column 0 is the first unit,
            column 1 is 31 bits of hash << 32 | number + 1, or 0 if the slot is free.
        pool: uint64, changed in place: room for the units of known words.
        info: int32 `[room + 1, 4]`, changed in place. For each known word, a row holds: start in `pool`; last row with
            the word, plus 1; number of rows with the word; occurrences. The row after the last word holds
            the start of the next word.
        count: words in the table.
        add: if True, number unknown words and count all words; if False, unknown words are -1 and nothing changes.
        ids: int32, one for each word, filled with the numbers of the words.

    Returns:
        (row, word, words in the table) of the first word that did not fit; `row` is the number of rows if all did.
    """
    mask = len(slots) - 1
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    # Most look-ups miss the processor's nearest cache: a loop without branches has many on their way at once.
    ahead = np.empty(_AHEAD, np.uint64)
    fetched = word
    for at_row in range(row, len(words.row_splits) - 1):
        row_mark = first_row + at_row + 1
        for number in range(max(word, words.row_splits[at_row]), words.row_splits[at_row + 1]):
            if number == fetched:
                fetched = min(number + _AHEAD, len(words.ends))
                for place in range(number, fetched):
                    ahead[place - number] = slots[words.hashes[place] & mask, 1]
                for place in range(fetched - number):
                    ahead[place] = info[max(int(ahead[place] & low) - 1, 0), 2]
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
    """The same table in `size` slots, a power of two."""
    larger = np.zeros((size, 2), np.uint64)
    for place in range(len(slots)):
        if slots[place, 1]:
            slot = np.int64(slots[place, 1] >> np.uint64(32)) & (size - 1)
            while larger[slot, 1]:
                slot = (slot + 1) & (size - 1)
            larger[slot, 0] = slots[place, 0]
            larger[slot, 1] = slots[place, 1]
    return larger


@compiled
def select_words(units: np.ndarray, ends: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Units, and where each ends, of the words at `places`, in that order."""
    chosen_ends = np.empty(len(places), np.int64)
    used = 0
    for number in range(len(places)):
        start = ends[places[number] - 1] if places[number] else 0
        used += ends[places[number]] - start
        chosen_ends[number] = used
    chosen = np.empty(used, np.uint64)
    used = 0
    for number in range(len(places)):
        start = ends[places[number] - 1] if places[number] else 0
        for at in range(start, ends[places[number]]):
            chosen[used] = units[at]
            used += 1
    return chosen, chosen_ends
