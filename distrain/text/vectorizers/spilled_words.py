"""Words of one dictionary on disk, in parts that can be merged one at a time.

Decides: the files, and which part a word belongs to. Never: which words are kept.

    save_run(scratch / "words-0-0", table_words(table), key)
    some = load_parts(scratch / "words-0-0")(7)

The part of a word depends on its bytes and the key alone, so that all dictionaries put a word into the same part.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distrain.array_files import write_values
from distrain.text.ragged import map_array
from distrain.text.vectorizers.tokenizer import WordTable
from distrain.text.vectorizers.tokenizer_kernels import hash_words
from distrain.text.vectorizers.word_table_kernels import select_words

PARTS = 256
_HASH_BITS = 31
_DTYPES = (np.uint64, np.int64, np.int32, np.int32, np.int64)  # of `CountedWords` in a file


class CountedWords(NamedTuple):
    """Distinct words with their counts.

    Attributes:
        units: uint64: all words' units, as `tokenizer_kernels` packs words.
        ends: int64 `[n]`: index in `units` behind each word.
        row_counts: integers `[n]`: number of rows that hold each word.
        counts: integers `[n]`: number of occurrences of each word.
        numbers: int64 `[n]`: number of each word in its dictionary.
    """

    units: np.ndarray
    ends: np.ndarray
    row_counts: np.ndarray
    counts: np.ndarray
    numbers: np.ndarray

    def select(self, indices: np.ndarray) -> CountedWords:
        """Return the words at `indices`, in that order."""
        units, ends = select_words(self.units, self.ends, indices)
        return CountedWords(units, ends, self.row_counts[indices], self.counts[indices], self.numbers[indices])


def table_words(table: WordTable) -> CountedWords:
    """Return the words of a table, with their counts."""
    return CountedWords(*table.units, table.row_counts, table.counts, np.arange(len(table)))


def save_run(stem: Path, words: CountedWords, key: np.uint64) -> None:
    """Write a run's words, ordered by part, into new files whose names begin with `stem`."""
    parts = hash_words(words.units, words.ends, key) >> (_HASH_BITS - PARTS.bit_length() + 1)
    ordered = words.select(np.argsort(parts, kind="stable"))
    for name, array, dtype in zip(CountedWords._fields, ordered, _DTYPES, strict=True):
        write_values(_file(stem, name), np.ascontiguousarray(array, dtype))
    write_values(_file(stem, "parts"), np.bincount(parts, minlength=PARTS).cumsum(dtype=np.int64))


def load_run(stem: Path) -> CountedWords:
    """Return all words of a run, mapped from files."""
    fields = zip(CountedWords._fields, _DTYPES, strict=True)
    return CountedWords(*(map_array(_file(stem, name), dtype) for name, dtype in fields))


def load_parts(stem: Path) -> Callable[[int], CountedWords]:
    """Return a function that returns the words of one part of a run."""
    words, part_ends = load_run(stem), [0, *map_array(_file(stem, "parts"), np.int64).tolist()]

    def part(number: int) -> CountedWords:
        start, stop = part_ends[number], part_ends[number + 1]
        first = int(words.ends[start - 1]) if start else 0
        last = int(words.ends[stop - 1]) if stop else 0
        ends = words.ends[start:stop] - first
        return CountedWords(words.units[first:last], ends, *(array[start:stop] for array in words[2:]))

    return part


def _file(stem: Path, name: str) -> Path:
    return stem.with_name(f"{stem.name}.{name}")
