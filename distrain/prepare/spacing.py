"""Signs that text is written without spaces, so that words between spaces tell little.

Decides: which rows are looked at, and when to warn. Never: cuts text into words.

    sample = SpacingSample()
    sample.add(block.texts)                              # for each block of rows
    sample.warning("train.csv", words_per_row=1.0)       # a sentence, or None
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from statistics import median_low

from distrain.text.readers.texts import Texts

_ROWS = 16  # of each block, which takes less than a hundredth of the time to read the block
_CHARACTERS = 2_000  # of each row
_MIN_WORD = 12  # characters: a shorter row of one word may be a name
_MIN_SHARE = 0.5  # of letters that belong to a script without spaces
_MIN_SIGNS = 0.1  # of characters that are vowel signs; Hindi has about 0.3
# Thai, Lao, Burmese, Khmer, Tai scripts, Japanese and Chinese.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff]"
)
_CURE = "Try --tokens char, which reads characters and pairs of characters in place of words."


class SpacingSample:
    """Counts the characters of a few rows of each block."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lengths: list[int] = []

    def add(self, texts: Texts) -> None:
        """Look at a few rows of a block, which may stand in the quotes of a CSV file."""
        some = texts.select(slice(None, None, max(1, texts.num_rows // _ROWS))).to_list()
        self._lengths += [len(text.strip(' "\r\n')) for text in some]
        self._counts.update("".join(text[:_CHARACTERS] for text in some))

    def warning(self, title: str, words_per_row: float) -> str | None:
        """Return a warning if words say little about the rows, else None.

        Args:
            title: name of the input.
            words_per_row: median number of words per row.
        """
        length = median_low(self._lengths) if self._lengths else 0
        if words_per_row <= 1 and length >= _MIN_WORD:
            what = f"the median row is one word of {length:,} characters: is this text written without spaces?"
        elif (share := self._unspaced()) > _MIN_SHARE:
            what = f"{share:.0%} of the letters belong to scripts without spaces, so words are whole clauses."
        elif (share := self._signs()) > _MIN_SIGNS:
            what = f"words are cut at vowel signs, which are {share:.0%} of the letters."
        else:
            return None
        return f"{title}: {what} {_CURE}"

    def _unspaced(self) -> float:
        letters = {letter: count for letter, count in self._counts.items() if letter.isalpha()}
        found = sum(count for letter, count in letters.items() if _UNSPACED.match(letter))
        return found / max(1, sum(letters.values()))

    def _signs(self) -> float:
        # Signs with a combining class are dropped, as accents are; all others end a word.
        signs = sum(
            count
            for letter, count in self._counts.items()
            if unicodedata.category(letter) in ("Mn", "Mc") and not unicodedata.combining(letter)
        )
        return signs / max(1, signs + sum(count for letter, count in self._counts.items() if letter.isalpha()))
