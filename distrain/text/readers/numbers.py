"""Numbers as files write them.

Decides: which text is a number. Never: what the number means.

    >>> parse_number(" 1.5e3"), parse_number("1_000"), parse_number("12 kg")
    (1500.0, None, None)
"""

from __future__ import annotations

import re

MAX_FLOAT32 = (2 - 2**-23) * 2.0**127  # the largest finite number of 32 bits
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,5})?")
_LONGEST = 400  # characters: the digits of the largest float64, and more


def parse_number(text: str) -> float | None:
    """Return the number that a text holds, which may be too large and then infinite; None for any other text."""
    plain = text.strip()
    return float(plain) if len(plain) <= _LONGEST and _NUMBER.fullmatch(plain) else None
