"""The tokens of texts, as a table of words or characters numbers them."""

from __future__ import annotations

import itertools

from distrain.text.readers.texts import Texts


def tokens_of(table, texts, *, add=True):
    """Return the tokens of each text; None for a token that the table does not know and may not add."""
    row_splits, ids = table.rows(Texts.of(texts), add=add)
    names = [word.decode() for word in table.words.to_list()]
    tokens = [names[number] if number >= 0 else None for number in ids.tolist()]
    return [tokens[start:end] for start, end in itertools.pairwise(row_splits.tolist())]
