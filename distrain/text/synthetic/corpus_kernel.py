"""Rows of made-up text, drawn word by word straight into bytes: the inner loop of `corpus.py`.

Decides: which word comes next, and where a sentence ends. Never: which words there are, or how a file is named.

    next_row, num_bytes = fill_block(block, longest_row, 0, 100, np.uint64(0), *language)

One random number of 64 bits decides one word. Bits 0-19 choose the word, bits 20-31 the class or the pair, bits 32-47
the kind of draw, bits 48-63 the punctuation.

`fill_block` has more than 80 lines, because a split would pass all its local state between functions.
"""

from __future__ import annotations

import numpy as np

from distrain.jit import compiled

LABEL_NOISE = 0.05  # share of rows that carry the label of another class
TOPIC_SHARE = 0.12  # share of draws that give a word of some class
TOPIC_PURITY = 0.55  # share of topic words from the row's own class; other topic words come from any class
PAIR_SHARE = 0.04  # share of draws that give a pair of words
SENTENCE_END = 1 / 12  # share of words that end a sentence

_KIND = 1 << 16
_TOPIC_BELOW = round(TOPIC_SHARE * _KIND)
_OWN_TOPIC_BELOW = round(TOPIC_SHARE * TOPIC_PURITY * _KIND)
_PAIR_BELOW = _TOPIC_BELOW + round(PAIR_SHARE * _KIND)
_SENTENCE_BELOW = round(SENTENCE_END * _KIND)
_NOISE_BELOW = round(LABEL_NOISE * _KIND)


@compiled
def _mix(value: np.uint64) -> np.uint64:
    """SplitMix64's finalizer (Steele, Lea and Flood, 2014): each input bit changes every output bit."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled
def _put_number(block: np.ndarray, end: int, number: int) -> int:
    """Write decimal digits from index `end`; return the index behind them."""
    power = 1
    while number // power >= 10:
        power *= 10
    while power > 0:
        block[end] = 48 + number // power % 10
        end += 1
        power //= 10
    return end


@compiled
def fill_block(
    block: np.ndarray,
    longest_row: int,
    row: int,
    rows: int,
    stream: np.uint64,
    letters: np.ndarray,
    num_letters: np.ndarray,
    zipf: np.ndarray,
    topics: np.ndarray,
    topic_zipf: np.ndarray,
    pairs: np.ndarray,
    pair_zipf: np.ndarray,
    lengths: np.ndarray,
) -> tuple[int, int]:
    """Write rows from `row` up to `rows` or a full block; return the next row, and the bytes used."""
    golden = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's increment
    num_classes = len(topics)
    end = 0
    while row < rows and end + longest_row <= len(block):
        state = _mix(_mix(stream + golden) + np.uint64(row))
        # Each `num_classes` consecutive rows hold every class once, starting with a random class.
        turn = _mix(_mix(stream + golden) ^ _mix(np.uint64(row // num_classes) + golden))
        label = int((turn >> np.uint64(32)) + np.uint64(row)) % num_classes
        state += golden
        draw = _mix(state)
        left = lengths[int(draw & np.uint64(0x3FF))]
        title_ends = left - max(left // 8, 1)
        shown = label
        # The first row of each class keeps its label, so that each class occurs.
        if row >= num_classes and int((draw >> np.uint64(16)) & np.uint64(0xFFFF)) < _NOISE_BELOW:
            others = int(draw >> np.uint64(40)) % (num_classes - 1)
            shown = (label + 1 + others) % num_classes

        block[end] = 34
        end = _put_number(block, end + 1, shown + 1)
        block[end] = 34
        block[end + 1] = 44
        block[end + 2] = 34
        end += 3
        capital = True
        second = -1  # the second word of a pair whose first one was just written
        while left > 0:
            state += golden
            draw = _mix(state)
            chosen = int((draw >> np.uint64(20)) & np.uint64(0xFFF))
            kind = int((draw >> np.uint64(32)) & np.uint64(0xFFFF))
            if second >= 0:
                word = int(pairs[1, second])
                second = -1
            elif kind < _TOPIC_BELOW:
                topic = label if kind < _OWN_TOPIC_BELOW else chosen % num_classes
                word = int(topics[topic, topic_zipf[int(draw & np.uint64(0x3FF))]])
            elif kind < _PAIR_BELOW:
                first = int(pair_zipf[chosen & 0x3FF])
                word = int(pairs[0, first])
                second = (first + label) % len(pairs[1])
            else:
                word = int(zipf[int(draw & np.uint64(0xFFFFF))])
            length = int(num_letters[word])
            for i in range(length):
                block[end + i] = letters[word, i]
            if capital:
                block[end] -= 32
                capital = False
            end += length
            left -= 1
            if left == title_ends:
                block[end] = 34
                block[end + 1] = 44
                block[end + 2] = 34
                end += 3
                capital = True
            elif left > 0:
                if second < 0 and int(draw >> np.uint64(48)) < _SENTENCE_BELOW:
                    block[end] = 46
                    end += 1
                    capital = True
                block[end] = 32
                end += 1
        block[end] = 34
        block[end + 1] = 10
        end += 2
        row += 1
    return row, end
