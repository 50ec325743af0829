"""Byte kernel of characters as tokens: fold texts, and cut them into single characters.

Decides: which white space joins. Never: checks its input, keeps state, numbers tokens (`word_table_kernels.py`).

    known, characters = split_characters(raw, starts, ends, ascii_fold, fold, key, room)

A character is a word of one unit; see `tokenizer_kernels.py`. Two or more characters of white space in a row become
one space, and a single one stays, as in scikit-learn's `TfidfVectorizer(analyzer="char")`.
"""

from __future__ import annotations

import numpy as np

from distrain.jit import compiled
from distrain.text.vectorizers.tokenizer_kernels import Fold, decode_utf8, mix_unit

_SPACE = 32
_SPACE_UNIT = np.uint64(_SPACE << 56)


@compiled
def _is_space(code_point: int) -> bool:
    """Return whether a folded character is white space in Python; folding makes spaces of all other white space."""
    return (
        code_point == _SPACE
        or 9 <= code_point <= 13
        or 28 <= code_point <= 31
        or code_point == 0x85
        or code_point == 0x1680
        or code_point == 0x2028
        or code_point == 0x2029
    )


@compiled
def split_characters(
    raw: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    ascii_fold: np.ndarray,
    fold: Fold,
    key: np.uint64,
    room: int,
) -> tuple[bool, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Fold texts and cut them into characters.

    Args:
        raw: uint8: valid UTF-8, lone surrogates allowed.
        starts: int64 `[n]`: index in `raw` of each text's first byte.
        ends: int64 `[n]`: index in `raw` behind each text.
        ascii_fold: uint8 `[256]`: folded form of each ASCII character, never 0; 0 for any other byte.
        fold: folded forms of all characters.
        key: odd key of the hash.
        room: upper bound on the bytes of all folded texts.

    Returns:
        Whether all characters were known, and the fields of `SplitWords`, which are valid only then.
    """
    units = np.empty(room + 1, np.uint64)
    row_splits = np.zeros(len(starts) + 1, np.int64)
    single = np.zeros(1, np.uint8)
    used = 0
    for row in range(len(starts)):
        at, stop = starts[row], ends[row]
        after_space = False
        while at < stop:
            byte = raw[at]
            pool, first, last = single, 0, 1
            if ascii_fold[byte]:
                single[0] = ascii_fold[byte]
                at += 1
            else:
                code_point, at = decode_utf8(raw, at)
                if not fold.known[code_point]:
                    return False, (units, np.empty(0, np.int64), np.empty(0, np.int64), row_splits)
                pool, first = fold.pool, fold.starts[code_point]
                last = first + fold.lengths[code_point]
            while first < last:
                start = first
                code_point = int(pool[first])
                if code_point < 128:
                    first += 1
                else:
                    code_point, first = decode_utf8(pool, first)
                if _is_space(code_point):
                    if after_space:
                        units[used - 1] = _SPACE_UNIT
                        continue
                    after_space = True
                else:
                    after_space = False
                unit = np.uint64(0)
                for index in range(start, first):
                    unit |= np.uint64(pool[index]) << np.uint64(56 - 8 * (index - start))
                units[used] = unit
                used += 1
        row_splits[row + 1] = used
    hashes = np.empty(used, np.int64)
    for index in range(used):
        hashes[index] = np.int64(mix_unit(key, units[index], key) >> np.uint64(33))
    return True, (units[:used], np.arange(1, used + 1), hashes, row_splits)
