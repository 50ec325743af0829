"""Text to tokens, and tokens to numbers: the tokenizer of both text pipelines.

Decides: what a token is, a word or a single character. Never: chooses words, touches files.

    table = WordTable()
    row_splits, ids = table.rows(Texts.of(["The cat", "the Café"]), add=True)   # [0, 2, 4], [0, 1, 0, 2]
    table.words.to_list()                                                       # [b"the", b"cat", b"cafe"]

Text is lower-cased and decomposed (NFKD), and combining characters are dropped. Two or more word characters in a row
(letters, digits, underscore) are then a word. scikit-learn's `TfidfVectorizer(strip_accents="unicode")` gives the same
words.

With the tokens "char" each character is a word: letters, white space, signs and emoji. scikit-learn's
`TfidfVectorizer(analyzer="char", strip_accents="unicode")` gives the same characters.

Folding works character by character, with a table that is filled as characters appear. Lower-casing depends on
neighbours in one case only, the Greek final sigma: Python lower-cases texts with a capital sigma first.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from distrain.text.readers.texts import Texts
from distrain.text.vectorizers.character_kernels import split_characters
from distrain.text.vectorizers.tokenizer_kernels import (
    Fold,
    SplitWords,
    hash_words,
    pack_words,
    split_words,
)
from distrain.text.vectorizers.word_table_kernels import number_words, rehash

CHUNK_BYTES = 2**18  # bytes tokenized at once, fitting a second-level cache; a chunk holds at least one text
_CODE_POINTS = 0x110000
_SIGMA = "\N{GREEK CAPITAL LETTER SIGMA}".encode()


@dataclass(frozen=True, eq=False)
class Words:
    """Distinct words as bytes, numbered from 0.

    Attributes:
        pool: uint8 `[bytes]`: the words' UTF-8, one after the other.
        ends: int64 `[n]`: index in `pool` behind each word.
    """

    pool: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def to_list(self) -> list[bytes]:
        """Return the words in order, each as UTF-8."""
        pool, start, words = self.pool.tobytes(), 0, []
        for end in self.ends.tolist():
            words.append(pool[start:end])
            start = end
        return words

    @staticmethod
    def from_list(words: Sequence[bytes]) -> Words:
        """Return the words of a list, as `to_list` returns it."""
        ends = np.cumsum([len(word) for word in words], dtype=np.int64)
        return Words(np.frombuffer(bytearray().join(words), np.uint8), ends)

    @staticmethod
    def from_units(units: np.ndarray, ends: np.ndarray) -> Words:
        """Return the words that `tokenizer_kernels` packed; `ends` indexes `units`."""
        octets = units.astype(">u8").view(np.uint8)
        is_letter = octets != 0
        return Words(octets[is_letter], np.cumsum(is_letter, dtype=np.int64)[8 * ends - 1])


def random_key() -> np.uint64:
    """Return an odd number, uint64, to key a hash.

    The key determines slots of tables alone, and no result. A random key keeps authors of text from forcing collisions.
    """
    return np.uint64(int.from_bytes(os.urandom(8), "little") | 1)


def fold(character: str) -> str:
    """Return the lower-case decomposition of a character without combining marks; a space ends a word."""
    decomposed = unicodedata.normalize("NFKD", character.lower())
    kept = (part for part in decomposed if not unicodedata.combining(part))
    return "".join(part if part.isalnum() or part == "_" else " " for part in kept)


def fold_character(character: str) -> str:
    """Return the lower-case decomposition of a character without combining marks, for characters as tokens."""
    if "\ud800" <= character <= "\udfff":  # a lone surrogate, which UTF-8 cannot hold
        return "\ufffd"
    decomposed = unicodedata.normalize("NFKD", character.lower())
    return "".join(part for part in decomposed if not unicodedata.combining(part)).replace("\0", " ")


class _FoldTable:
    """A function that folds characters as arrays, filled for the characters seen so far."""

    def __init__(self, tokens: str) -> None:
        self._fold = fold_character if tokens == "char" else fold
        self.table = Fold(
            known=np.zeros(_CODE_POINTS, np.bool_),
            starts=np.zeros(_CODE_POINTS, np.int32),
            lengths=np.zeros(_CODE_POINTS, np.uint8),
            pool=np.zeros(0, np.uint8),
        )
        self.growth = 1  # largest ratio of folded bytes to bytes of a character, rounded up
        self.learn("".join(map(chr, range(128))))
        self.ascii = np.zeros(256, np.uint8)
        for code_point in range(128):
            folded = self._fold(chr(code_point))
            self.ascii[code_point] = ord(folded if tokens == "char" else folded.strip() or "\0")

    def learn(self, text: str) -> None:
        """Add the characters of `text` that are not in the table."""
        code_points = np.unique(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32))
        known, starts, lengths, pool = self.table
        new = code_points[~known[code_points]]
        folded = [self._fold(chr(code_point)).encode() for code_point in new.tolist()]
        sizes = np.array([len(form) for form in folded], np.int64)
        starts[new] = len(pool) + np.cumsum(sizes) - sizes
        lengths[new] = sizes
        known[new] = True
        self.table = self.table._replace(pool=np.concatenate([pool, np.frombuffer(b"".join(folded), np.uint8)]))
        # A character takes one byte in ASCII, and at least two bytes otherwise.
        widths = np.where(new < 128, 1, 2)
        self.growth = max(self.growth, int((-(-sizes // widths)).max(initial=0)))


@cache
def _fold_table(tokens: str) -> _FoldTable:
    return _FoldTable(tokens)


class WordTable:
    """Numbers words in the order in which they first appear, and counts them: a hash table.

    A million distinct words of eight bytes take 60 to 110 MB. One thread at a time may use a table.

    Args:
        words: distinct words that the table holds from the start, with unchanged numbers.
        tokens: "word", or "char" if each character is a word.
    """

    def __init__(self, words: Words | None = None, *, tokens: str = "word") -> None:
        self._fold = _fold_table(tokens)
        self._split_texts = split_characters if tokens == "char" else split_words
        self._key = random_key()
        self._slots = np.zeros((1024, 2), np.uint64)
        self._pool = np.empty(1024, np.uint64)
        self._info = np.zeros((1024, 4), np.int32)
        self._count = 0
        if words is not None and len(words):
            self.add(*pack_words(words.pool, words.ends))

    def __len__(self) -> int:
        return self._count

    @property
    def num_bytes(self) -> int:
        """Size of the table in memory, in bytes."""
        return self._slots.nbytes + self._pool.nbytes + self._info.nbytes

    @property
    def units(self) -> tuple[np.ndarray, np.ndarray]:
        """Units of the words so far, uint64, and the index behind each word, int64, ordered by number."""
        ends = self._info[1 : self._count + 1, 0].astype(np.int64)
        return self._pool[: self._info[self._count, 0]], ends

    @property
    def words(self) -> Words:
        """The words so far, ordered by number."""
        return Words.from_units(*self.units)

    @property
    def row_counts(self) -> np.ndarray:
        """Number of rows that hold each word, int32 (a view)."""
        return self._info[: self._count, 2]

    @property
    def counts(self) -> np.ndarray:
        """Number of occurrences of each word, int32 (a view)."""
        return self._info[: self._count, 3]

    def add(self, units: np.ndarray, ends: np.ndarray, *, add: bool = True) -> np.ndarray:
        """Return the numbers of packed words, int32, like `rows` does for one text with these words."""
        words = SplitWords(units, ends, hash_words(units, ends, self._key), np.array([0, len(ends)]))
        return self._number(words, 0, add)

    def rows(self, texts: Texts, *, add: bool, first_row: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return the results of `chunks` in one: row splits int64 `[n + 1]`, and ids int32."""
        parts = list(self.chunks(texts, add=add, first_row=first_row))
        lengths = [np.diff(row_splits) for row_splits, _ in parts]
        row_splits = np.concatenate([[0], *lengths]).cumsum(dtype=np.int64)
        return row_splits, np.concatenate([np.empty(0, np.int32), *(ids for _, ids in parts)])

    def chunks(self, texts: Texts, *, add: bool, first_row: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the numbers of the words of each text, in bounded chunks of texts.

        Args:
            texts: any text; a lone surrogate separates words.
            add: if True, number unknown words and count all words; if False, unknown words are -1.
            first_row: number of the first text among all added texts.

        Yields:
            Row splits, int64 `[rows + 1]` from 0, and the ids of the words in text order, int32.
        """
        if _SIGMA in texts.raw:
            texts = Texts.of([text.lower() for text in texts.to_list()])
        lengths = np.cumsum(texts.ends - texts.starts)
        start = 0
        while start < texts.num_rows:
            done = lengths[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(lengths, done + CHUNK_BYTES, side="right")))
            words = self._split(texts.select(slice(start, stop)))
            yield words.row_splits, self._number(words, first_row + start, add)
            start = stop

    def _split(self, texts: Texts) -> SplitWords:
        raw = np.frombuffer(texts.raw, np.uint8)
        num_bytes = int((texts.ends - texts.starts).sum())
        while True:
            room = num_bytes if self._fold.growth == 1 else num_bytes * self._fold.growth
            all_known, words = self._split_texts(
                raw, texts.starts, texts.ends, self._fold.ascii, self._fold.table, self._key, room
            )
            if all_known:
                return SplitWords(*words)
            self._fold.learn("".join(texts.to_list()))

    def _number(self, words: SplitWords, first_row: int, add: bool) -> np.ndarray:
        ids = np.empty(len(words.ends), np.int32)
        row, word = 0, 0
        while True:
            row, word, self._count = number_words(
                words, row, word, first_row, self._slots, self._pool, self._info, self._count, add, ids
            )
            if row == len(words.row_splits) - 1:
                return ids
            self._grow(int(words.ends[word] - (words.ends[word - 1] if word else 0)))

    def _grow(self, num_units: int) -> None:
        """Make room for one more word of `num_units`, doubling whatever is full."""
        used = int(self._info[self._count, 0])
        if 2 * (self._count + 1) > len(self._slots):
            self._slots = rehash(self._slots, 2 * len(self._slots))
        if self._count + 1 == len(self._info):
            self._info = np.concatenate([self._info, np.empty_like(self._info)])
        if used + num_units > len(self._pool):
            self._pool = np.concatenate([self._pool, np.empty(max(len(self._pool), num_units), np.uint64)])
