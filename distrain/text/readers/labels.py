"""Labels as class numbers, and the six known data sets.

Decides: which class a label names, in what order the classes are numbered, which labels are refused. Never:
reads files, or names the location of a label (the caller adds the location to a message).

    learner = LabelLearner()
    [learner.number(label) for label in ("sport", "art", "sport")]     # [0, 1, 0]: in order of appearance
    classes, order = learner.finish()                                  # order [1, 0]: class of each number
    classes.names, classes.number("art")                               # ("art", "sport"), 0

Classes are learnt from training rows only. Labels that are all integers sort by value, others
alphabetically. A known data set fixes its classes: its labels count from 1, or are class names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from distrain.errors import DataError
from distrain.text.readers.label_lists import is_list

MAX_CLASSES = 65_536  # more distinct labels than this are texts or row numbers, not classes
MAX_LABEL_CHARACTERS = 1_000  # longer labels are texts
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_SHOWN = 60  # characters of a wrong label that a message quotes


@dataclass(frozen=True)
class KnownSet:
    """A published text classification data set.

    Attributes:
        classes: class names in label order; label 1 is the first class.
        train_rows: published number of training rows.
        test_rows: published number of test rows.
        escaped_newlines: whether the set's files write a newline as a backslash and an n. The review sets do. AG News
            writes a lone backslash, so that a backslash and an n may begin a word.
    """

    classes: tuple[str, ...]
    train_rows: int
    test_rows: int
    escaped_newlines: bool


_POLARITY = ("negative", "positive")
_STARS = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")

# Zhang, Zhao, LeCun: Character-level Convolutional Networks for Text Classification (arXiv 1509.01626).
KNOWN_SETS = MappingProxyType(
    {
        "ag_news": KnownSet(("World", "Sports", "Business", "Sci/Tech"), 120_000, 7_600, False),
        "dbpedia": KnownSet(
            (
                "Company",
                "EducationalInstitution",
                "Artist",
                "Athlete",
                "OfficeHolder",
                "MeanOfTransportation",
                "Building",
                "NaturalPlace",
                "Village",
                "Animal",
                "Plant",
                "Album",
                "Film",
                "WrittenWork",
            ),
            560_000,
            70_000,
            False,
        ),
        "yelp_polarity": KnownSet(_POLARITY, 560_000, 38_000, True),
        "yelp_full": KnownSet(_STARS, 650_000, 50_000, True),
        "amazon_polarity": KnownSet(_POLARITY, 3_600_000, 400_000, True),
        "amazon_full": KnownSet(_STARS, 3_000_000, 650_000, True),
    }
)


@dataclass(frozen=True)
class Classes:
    """Class names, their numbers, and the labels of each class.

    Attributes:
        names: class names by class number.
        numbers: class number of each label; for a known set also the class number of each case-folded name.
        known: whether a known set fixes the classes.
    """

    names: tuple[str, ...]
    numbers: Mapping[str, int]
    known: bool

    def number(self, label: str) -> int:
        """Return the class number of a label.

        Raises:
            DataError: the label is empty or names no class.
        """
        number = self.numbers.get(label)
        if number is None and self.known:
            plain = str(int(label)) if _INTEGER.fullmatch(label) else label.casefold()
            number = self.numbers.get(plain)
        if number is None:
            _check(label)
            raise DataError(self._unknown(label))
        return number

    def _unknown(self, label: str) -> str:
        if not self.known:
            return (
                f"label {_quote(label)} does not occur in the training rows, so nothing was learnt about it. "
                "Correct the label, or add training rows of this class."
            )
        what = "outside" if _INTEGER.fullmatch(label) else "neither a class name nor a number in"
        return (
            f"label {_quote(label)} is {what} 1..{len(self.names)}. Labels of this data set count from 1; "
            "check --dataset and --label-column, or leave --dataset out to take the labels as they are."
        )


def known_classes(known: KnownSet) -> Classes:
    """Return the classes of a known set, whose labels are numbers from 1 or names in any case."""
    numbers = {str(number + 1): number for number in range(len(known.classes))}
    names = {name.casefold(): number for number, name in enumerate(known.classes)}
    return Classes(known.classes, numbers | names, known=True)


class LabelLearner:
    """Numbers the labels of training rows in order of appearance, until `finish` sorts them into classes."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, label: str) -> int:
        """Return the number of a label; a new label gets the next number.

        Raises:
            DataError: the label is empty or cannot be a class name, or there are too many labels.
        """
        number = self._numbers.get(label)
        if number is None:
            _check(label)
            number = len(self._numbers)
            if number == MAX_CLASSES:
                raise DataError(f"over {MAX_CLASSES:,} labels differ. Is this the label column? See --label-column.")
            self._numbers[label] = number
        return number

    def finish(self) -> tuple[Classes, np.ndarray]:
        """Return the classes, and the class number of each number that `number` returned, int32 `[classes]`."""
        if all(map(_INTEGER.fullmatch, self._numbers)):
            names = sorted(self._numbers, key=lambda name: (int(name), name))
        else:
            names = sorted(self._numbers)
        numbers = {name: number for number, name in enumerate(names)}
        order = np.array([numbers[name] for name in self._numbers], np.int32)
        return Classes(tuple(names), numbers, known=False), order


def _check(label: str) -> None:
    """Raise DataError if the label cannot be the name of a class."""
    if is_list(label):
        raise DataError("the label is a list of labels. Give --task multilabel for rows of several labels.")
    if not label:
        raise DataError("the label is missing. Every row needs one; add it or remove the row.")
    if len(label) > MAX_LABEL_CHARACTERS:
        raise DataError(
            f"a label of {len(label):,} characters ({_quote(label)}); {MAX_LABEL_CHARACTERS:,} are allowed. "
            "Is this the label column? --label-column names it."
        )
    if any("\ud800" <= character <= "\udfff" for character in label):
        raise DataError(f"label {_quote(label)} is not valid Unicode text. Rename the class.")


def _quote(label: str) -> str:
    return repr(label if len(label) <= _SHOWN else label[:_SHOWN] + "...")
