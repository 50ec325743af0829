"""Labels that become class numbers."""

from __future__ import annotations

import pytest

from distrain.config import DATASETS
from distrain.errors import DataError
from distrain.text.readers.labels import KNOWN_SETS, LabelLearner, known_classes


def test_known_sets_are_those_of_the_configuration():
    assert tuple(KNOWN_SETS) == DATASETS
    assert [len(known.classes) for known in KNOWN_SETS.values()] == [4, 14, 2, 5, 2, 5]
    classes = known_classes(KNOWN_SETS["ag_news"])
    assert [classes.number(label) for label in ("1", "04", "world", "Sci/Tech")] == [0, 3, 0, 3]


def test_too_many_labels_are_no_classes():
    learner = LabelLearner()
    with pytest.raises(DataError, match=r"65,536 labels differ.*--label-column"):
        [learner.number(f"id {number}") for number in range(70_000)]
