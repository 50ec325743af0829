"""Many texts in one buffer of UTF-8, without a Python object for each text.

Decides: how a block of texts lies in memory. Never: what a word is, or where a text came from.

    texts = Texts.of(["The cat", "the Café"])
    texts.select(np.array([1])).to_list()              # ["the Café"]

Only the words of a text count. A text cut out of a CSV file may hold doubled quotes, and separators between columns;
neither quotes nor separators belong to a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Texts(NamedTuple):
    """A block of texts.

    Attributes:
        raw: UTF-8; lone surrogates are allowed, as Python's "surrogatepass" writes them.
        starts: int64 `[n]`, ascending: index in `raw` of each text's first byte.
        ends: int64 `[n]`: index in `raw` behind each text's last byte.
    """

    raw: bytes
    starts: np.ndarray
    ends: np.ndarray

    @property
    def num_rows(self) -> int:
        """Number of texts."""
        return len(self.starts)

    def select(self, rows: np.ndarray | slice) -> Texts:
        """Return the texts that a mask, indices or a slice selects."""
        return Texts(self.raw, self.starts[rows], self.ends[rows])

    def to_list(self) -> list[str]:
        """Return the texts as Python strings."""
        bounds = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        return [self.raw[start:end].decode(errors="surrogatepass") for start, end in bounds]

    @staticmethod
    def of(texts: Sequence[str]) -> Texts:
        """Return the block that holds these strings."""
        encoded = [text.encode(errors="surrogatepass") for text in texts]
        ends = np.fromiter(map(len, encoded), np.int64, len(encoded)).cumsum()
        return Texts(b"".join(encoded), np.concatenate([np.zeros(1, np.int64), ends])[:-1], ends)
