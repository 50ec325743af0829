"""Many texts in one buffer of UTF-8, without a Python object for each text.

Decides: how a block of texts lies in memory. Never: what a word is, or where a text came from.

    texts = Texts.of(["The cat", "the Café"])
    texts.select(np.array([1])).to_list()              # ["the Café"]

Only the words of a text count. A text cut out of a CSV file may hold doubled quotes, and separators between columns;
neither is part of a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Texts(NamedTuple):
    """A block of texts.

    Attributes:
        raw: UTF-8; lone surrogates are allowed, as Python's "surrogatepass" writes them.
        starts: int64 `[n]`: where each text starts in `raw`, ascending;
        ends: int64 `[n]`: and ends.
    """

    raw: bytes
    starts: np.ndarray
    ends: np.ndarray

    @property
    def num_rows(self) -> int:
        """Number of texts."""
        return len(self.starts)

    def select(self, rows: np.ndarray | slice) -> Texts:
        """Some of the texts, by mask, numbers or slice."""
        return Texts(self.raw, self.starts[rows], self.ends[rows])

    def to_list(self) -> list[str]:
        """The texts as Python strings."""
        bounds = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        return [self.raw[start:end].decode(errors="surrogatepass") for start, end in bounds]

    @staticmethod
    def of(texts: Sequence[str]) -> Texts:
        """The texts of Python strings."""
        pieces = [text.encode(errors="surrogatepass") for text in texts]
        ends = np.fromiter(map(len, pieces), np.int64, len(pieces)).cumsum()
        return Texts(b"".join(pieces), np.concatenate([np.zeros(1, np.int64), ends])[:-1], ends)
