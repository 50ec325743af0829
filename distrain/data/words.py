"""Text to words, and words to numbers: the one tokenizer of both text pipelines.

Decides: what a word is. Lower-case, decompose (NFKD), drop combining characters, then every run of two or more
word characters (letters, digits, underscore) is a word: the words of scikit-learn's
`TfidfVectorizer(strip_accents="unicode")`. Never: counts words, touches files.

    table = WordTable()
    row_splits, ids = table.rows(["The cat", "the Café"], add=True)   # [0, 2, 4], [0, 1, 0, 2]
    table.words.to_list()                                             # [b"the", b"cat", b"cafe"]

Folding works character by character, which is exact but for the one rule of Unicode lower-casing that looks
around itself, the final sigma: where a capital sigma stands, texts are lower-cased by Python first. A character's
folded form is looked up in a table that is filled as characters turn up.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from distrain.data.word_kernels import hash_words, look_up, rehash, split_words

CHUNK_CHARACTERS = 2**20  # what is tokenized at once: small enough to stay near the processor, a text more at most
_CODE_POINTS = 0x110000


@dataclass(frozen=True, eq=False)
class Words:
    """Distinct words as bytes, numbered from 0.

    Attributes:
        pool: uint8 `[bytes]`: the words' UTF-8, one after the other.
        ends: int64 `[n]`: where each word ends in `pool`.
    """

    pool: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def to_list(self) -> list[bytes]:
        """The words in order, each as UTF-8."""
        pool, start, words = self.pool.tobytes(), 0, []
        for end in self.ends.tolist():
            words.append(pool[start:end])
            start = end
        return words

    @staticmethod
    def from_list(words: Sequence[bytes]) -> Words:
        """The reverse of `to_list`."""
        ends = np.cumsum([len(word) for word in words], dtype=np.int64)
        return Words(np.frombuffer(bytearray().join(words), np.uint8), ends)

    def take(self, numbers: np.ndarray) -> list[bytes]:
        """The words with these numbers."""
        starts = np.concatenate([[0], self.ends[:-1]])[numbers].tolist()
        return [self.pool[start:end].tobytes() for start, end in zip(starts, self.ends[numbers].tolist(), strict=True)]


def random_key() -> np.uint64:
    """An odd number to key a hash with.

    It only places things in tables, so that no result depends on it, and nobody can write text that collides.
    """
    return np.uint64(int.from_bytes(os.urandom(8), "little") | 1)


def fold(character: str) -> str:
    """What one character becomes: its lower-case decomposition without combining marks; a space ends a word."""
    decomposed = unicodedata.normalize("NFKD", character.lower())
    kept = (part for part in decomposed if not unicodedata.combining(part))
    return "".join(part if part.isalnum() or part == "_" else " " for part in kept)


class _FoldTable:
    """`fold` as arrays, filled for the characters seen so far: code point -> a stretch of UTF-8 bytes."""

    def __init__(self) -> None:
        self.known = np.zeros(_CODE_POINTS, np.bool_)
        self.starts = np.zeros(_CODE_POINTS, np.int32)
        self.lengths = np.zeros(_CODE_POINTS, np.uint8)
        self.pool = np.zeros(0, np.uint8)
        self.learn(np.arange(128, dtype=np.uint32))

    def learn(self, code_points: np.ndarray) -> None:
        """Add those of `code_points` (uint32) that are not in the table."""
        new = np.unique(code_points[~self.known[code_points]])
        folded = [fold(chr(code_point)).encode() for code_point in new.tolist()]
        lengths = np.array([len(piece) for piece in folded], np.int64)
        self.starts[new] = len(self.pool) + np.cumsum(lengths) - lengths
        self.lengths[new] = lengths
        self.known[new] = True
        self.pool = np.concatenate([self.pool, np.frombuffer(b"".join(folded), np.uint8)])


class WordTable:
    """Numbers words in the order in which they first appear: a hash table, its matches compared byte by byte.

    Takes 32 to 56 MB a million distinct words of eight bytes. For one thread at a time.

    Args:
        words: distinct words to begin with; they keep their numbers.
    """

    def __init__(self, words: Words | None = None) -> None:
        self._fold = _FoldTable()
        self._key = random_key()
        self._slots = np.zeros(1024, np.int64)  # 31 bits of hash << 32 | number + 1; 0: free
        self._pool = np.empty(8192, np.uint8)
        self._ends = np.empty(1024, np.int64)
        self._count = 0
        if words is not None and len(words):
            hashes = hash_words(words.pool, words.ends, self._key)
            self._number(words.pool, words.ends, hashes, add=True)

    def __len__(self) -> int:
        return self._count

    @property
    def words(self) -> Words:
        """The words so far, by number (views: do not keep them while adding)."""
        ends = self._ends[: self._count]
        return Words(self._pool[: ends[-1] if self._count else 0], ends)

    def rows(self, texts: Sequence[str], *, add: bool) -> tuple[np.ndarray, np.ndarray]:
        """All of `chunks` at once: row_splits int64 `[n + 1]`, ids int32."""
        parts = list(self.chunks(texts, add=add))
        lengths = [np.diff(row_splits) for row_splits, _ in parts]
        row_splits = np.concatenate([[0], *lengths]).cumsum(dtype=np.int64)
        return row_splits, np.concatenate([np.empty(0, np.int32), *(ids for _, ids in parts)])

    def chunks(self, texts: Sequence[str], *, add: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Numbers of the words of each text, in bounded chunks of texts.

        Args:
            texts: any text; a lone surrogate separates words.
            add: number unknown words; otherwise they are -1.

        Yields:
            row_splits int64 `[rows + 1]` from 0, and ids int32: the words of a text in order.
        """
        first, characters = 0, 0
        for number, text in enumerate(texts):
            characters += len(text)
            if characters >= CHUNK_CHARACTERS or number + 1 == len(texts):
                yield self._rows(texts[first : number + 1], add)
                first, characters = number + 1, 0

    def _rows(self, texts: Sequence[str], add: bool) -> tuple[np.ndarray, np.ndarray]:
        joined = "".join(texts)
        if "\N{GREEK CAPITAL LETTER SIGMA}" in joined:
            texts = [text.lower() for text in texts]
            joined = "".join(texts)
        code_points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
        if not joined.isascii():
            self._fold.learn(code_points)
        text_ends = np.fromiter(map(len, texts), np.int64, len(texts)).cumsum()
        pool, ends, hashes, row_splits = split_words(
            code_points, text_ends, self._fold.starts, self._fold.lengths, self._fold.pool, self._key
        )
        return row_splits, self._number(pool, ends, hashes, add)

    def _number(self, pool: np.ndarray, ends: np.ndarray, hashes: np.ndarray, add: bool) -> np.ndarray:
        ids = np.empty(len(ends), np.int32)
        done = 0
        while True:
            done, self._count = look_up(
                pool, ends, hashes, done, self._slots, self._pool, self._ends, self._count, add, ids
            )
            if done == len(ends):
                return ids
            self._grow(int(ends[done] - (ends[done - 1] if done else 0)))

    def _grow(self, word_bytes: int) -> None:
        """Make room for one more word of `word_bytes`, doubling whatever is full."""
        used = len(self.words.pool)
        if 2 * (self._count + 1) > len(self._slots):
            self._slots = rehash(self._slots, 2 * len(self._slots))
        if self._count == len(self._ends):
            self._ends = np.concatenate([self._ends, np.empty_like(self._ends)])
        if used + word_bytes > len(self._pool):
            room = np.empty(max(len(self._pool), word_bytes), np.uint8)
            self._pool = np.concatenate([self._pool, room])
