"""Byte kernels of the tokenizer: fold text, cut text into words, and hash and pack words.

Decides: the layout of words. Never: checks its input, keeps state, numbers words (`word_table_kernels.py`).

    known, words = split_words(raw, starts, ends, ascii_fold, fold, key, room)

A word is its folded UTF-8 in units of eight bytes, as `uint64`. A unit holds its first byte in its highest bits, and
zeros follow the last byte. Words compare as their units do, and one unit is enough for most words. NUL is no word
character, so no two words have the same units.

`split_words` has more than 80 lines, because a split would pass all its local state between functions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from distrain.jit import compiled

_SPACE = 32


class SplitWords(NamedTuple):
    """Words in text order.

    Attributes:
        units: uint64: all words' units, one after the other.
        ends: int64 `[words]`: index in `units` behind each word.
        hashes: int64 `[words]`: hash of each word, 31 bits.
        row_splits: int64 `[rows + 1]`: row splits over words.
    """

    units: np.ndarray
    ends: np.ndarray
    hashes: np.ndarray
    row_splits: np.ndarray


class Fold(NamedTuple):
    """The folded form of each code point.

    Attributes:
        known: bool `[code points]`: whether the folded form is in the table.
        starts: int32 `[code points]`: index in `pool` of the folded form's first byte.
        lengths: uint8 `[code points]`: number of bytes of the folded form.
        pool: uint8: folded forms in UTF-8; a space ends a word.
    """

    known: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    pool: np.ndarray


@compiled
def mix_unit(state: np.uint64, unit: np.uint64, key: np.uint64) -> np.uint64:
    """Return the state of a word's hash after one more unit; `key` is the first state."""
    # A product carries towards high bits only. The shift brings the high bits, which hold a short word, down first.
    state = (state ^ unit ^ (unit >> np.uint64(32))) * key
    return state ^ (state >> np.uint64(32))


@compiled
def hash_words(units: np.ndarray, ends: np.ndarray, key: np.uint64) -> np.ndarray:
    """Return the hash of each word, int64 of 31 bits, equal to the hash of `split_words`."""
    hashes = np.empty(len(ends), np.int64)
    start = 0
    for number in range(len(ends)):
        state = key
        for at in range(start, ends[number]):
            state = mix_unit(state, units[at], key)
        hashes[number] = np.int64(state >> np.uint64(33))
        start = ends[number]
    return hashes


@compiled
def pack_words(pool: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pack words of bytes (`pool` uint8, `ends` int64); return the units, and the index behind each word."""
    units = np.zeros(len(pool) // 8 + len(ends), np.uint64)
    unit_ends = np.empty(len(ends), np.int64)
    start, used = 0, 0
    for number in range(len(ends)):
        for at in range(start, ends[number]):
            index = used + (at - start) // 8
            units[index] |= np.uint64(pool[at]) << np.uint64(56 - 8 * ((at - start) % 8))
        used += (ends[number] - start + 7) // 8
        unit_ends[number] = used
        start = ends[number]
    return units[:used], unit_ends


@compiled
def decode_utf8(raw: np.ndarray, at: int) -> tuple[int, int]:
    """Return the code point of the valid UTF-8 sequence of two to four bytes at `at`, and the index behind it."""
    byte = int(raw[at])
    code_point, size = byte & 0x1F, 2
    if byte >= 0xF0:
        code_point, size = byte & 0x07, 4
    elif byte >= 0xE0:
        code_point, size = byte & 0x0F, 3
    for index in range(at + 1, at + size):
        code_point = code_point << 6 | (int(raw[index]) & 0x3F)
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
        starts: int64 `[n]`: index in `raw` of each text's first byte.
        ends: int64 `[n]`: index in `raw` behind each text.
        ascii_fold: uint8 `[256]`: folded form of each ASCII word character; 0 for any other byte.
        fold: folded forms of all characters.
        key: odd key of the hash.
        room: upper bound on the bytes of all folded texts.

    Returns:
        Whether all characters were known, and the fields of `SplitWords`, which are valid only then. The fields are a
        plain tuple, because a signal while numba builds a named tuple ends the process.
    """
    # A word and its separator take at least three bytes, except for the last word of a text.
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
                    state = mix_unit(state, unit, key)
                    used += 1
                    unit, filled = np.uint64(0), 0
                continue
            code_point = int(byte)
            if byte < 128:
                at += 1
            else:
                code_point, at = decode_utf8(raw, at)
                if not fold.known[code_point]:
                    return False, (units, word_ends, hashes, row_splits)
            for index in range(fold.starts[code_point], fold.starts[code_point] + fold.lengths[code_point]):
                letter = fold.pool[index]
                if letter != _SPACE:
                    unit = unit << eight | np.uint64(letter)
                    filled += 1
                    characters += (letter & 0xC0) != 0x80  # not a continuation byte
                    if filled == 8:
                        units[used] = unit
                        state = mix_unit(state, unit, key)
                        used += 1
                        unit, filled = np.uint64(0), 0
                elif characters:
                    if characters > 1:
                        if filled:
                            unit = unit << np.uint64(64 - 8 * filled)
                            units[used] = unit
                            state = mix_unit(state, unit, key)
                            used += 1
                        word_ends[words] = used
                        hashes[words] = np.int64(state >> np.uint64(33))
                        words += 1
                        word_start = used
                    used = word_start
                    characters, unit, filled, state = 0, np.uint64(0), 0, key
        row_splits[row + 1] = words
    return True, (units[:used], word_ends[:words], hashes[:words], row_splits)
