"""Several labels of one row, as one string between reader and `prepare`.

Decides: how a list of labels becomes a string, and how labels are separated in text. Never: what a label names.

    >>> split_labels(joined_labels(["war", "sea"]), None), split_labels("war; sea;", ";")
    (['war', 'sea'], ['war', 'sea'])

The strings of lists begin with a separator of ASCII. Readers strip white space from other labels, and this separator
counts as white space. So no other label begins with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from distrain.errors import DataError

_UNIT = "\x1f"  # ASCII's separator of units


def joined_labels(labels: Sequence[str]) -> str:
    """Return a list of labels as one string.

    Raises:
        DataError: a label is empty, or holds the separator.
    """
    stripped = [label.strip() for label in labels]
    for label in stripped:
        if not label:
            raise DataError("a label in the list is empty. Name it, or take it out of the list.")
        if _UNIT in label:
            raise DataError(f"label {label[:60]!r} holds the control character 0x1F. Rename it.")
    return _UNIT + _UNIT.join(stripped)


def is_list(label: str) -> bool:
    """Return whether a label is a list of labels."""
    return label.startswith(_UNIT)


def split_labels(label: str, separator: str | None) -> list[str]:
    """Return the labels of a row; no label is an empty string, and nothing between two separators is no label."""
    if is_list(label):
        return label[1:].split(_UNIT) if len(label) > 1 else []
    if separator is None:
        return [label] if label else []
    return [one for part in label.split(separator) if (one := part.strip())]
