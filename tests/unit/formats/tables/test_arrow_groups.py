"""Groups of a mapped file stay open within a bound; of packed groups one is held, until its end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pytest

from distrain.formats.tables import arrow_groups
from distrain.formats.tables.arrow_groups import ArrowGroups

COUNTS = [4, 3, 0, 5]
TABLE = pyarrow.table({"x": np.arange(12), "y": np.arange(12) * 2.0})
STARTS = [0, 4, 7, 7]


@pytest.fixture
def loaded():
    return []


def groups(loaded, *, mapped):
    def load(group, names):
        loaded.append(group)
        return TABLE.slice(STARTS[group], COUNTS[group]).select(list(names))

    return ArrowGroups(Path("a.arrow"), TABLE.schema, COUNTS, load, mapped=mapped)


def read_all(opened, names=("x", "y")):
    for start, stop in ((0, 2), (3, 6), (5, 12), (8, 9), (1, 3)):
        found = opened.read(names, start, stop)
        assert found["x"].tolist() == list(range(start, stop))
        assert list(found) == list(names)


def test_a_group_of_a_mapped_file_is_opened_once(loaded):
    opened = groups(loaded, mapped=True)
    for _ in range(3):
        read_all(opened)
    assert loaded == [0, 1, 3]
    opened.release()
    read_all(opened)
    assert loaded == [0, 1, 3] * 2


def test_other_columns_open_a_group_anew(loaded):
    opened = groups(loaded, mapped=True)
    read_all(opened, ("x",))
    read_all(opened, ("x", "y"))
    assert loaded == [0, 1, 3] * 2


def test_open_groups_are_bounded(loaded, monkeypatch):
    monkeypatch.setattr(arrow_groups, "MAX_MAPPED_COLUMNS", 4)  # two groups of two columns
    opened = groups(loaded, mapped=True)
    for start in (0, 4, 0, 7, 4, 0):  # 0 was used last when 7 comes, so 4 is forgotten
        opened.read(["x"], start, start + 1)
        assert len(opened._held) <= 2
    assert loaded == [0, 1, 3, 1, 0]


def test_one_packed_group_is_held_until_its_end(loaded):
    opened = groups(loaded, mapped=False)
    opened.read(["x"], 0, 2)
    opened.read(["x"], 2, 3)
    assert loaded == [0]
    opened.read(["x"], 3, 5)
    assert list(opened._held) == [1]
    opened.read(["x"], 5, 7)
    assert not opened._held
    assert loaded == [0, 1]
