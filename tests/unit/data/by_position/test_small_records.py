"""Records that are read one by one become rows of a batch, whatever their shape; faults name the record."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

from distrain.data.by_position.elements import layout_of, stacked
from distrain.data.nests import concatenated, leaves
from distrain.data.positional import positional_examples
from distrain.errors import DataError

EACH = np.array([[0, 6]]), np.array([4, 0, 5, 2])


class Records:
    """Records of one shape by number alone."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        return self.rows[number], number


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (2, 1, 3), (0,), (0, 3), (3, 0)])
def test_rows_are_the_records(shape):
    rows = np.arange(6 * np.prod(shape, dtype=int), dtype=np.float32).reshape(6, *shape)
    for given in (list(rows), [np.array(row, order="F") for row in rows]):  # scalars, and arrays without axes
        features, labels, _ = positional_examples(Records(given)).load(*EACH)(0, 4)
        assert (features.shape, features.dtype) == ((4, *shape), np.float32)
        assert np.array_equal(features, rows[EACH[1]])
        assert labels.tolist() == EACH[1].tolist()


def test_records_that_are_views_with_gaps():
    rows = np.arange(96, dtype=np.int16).reshape(6, 4, 4)
    features, _, _ = positional_examples(Records([row[::2, ::-1] for row in rows])).load(*EACH)(0, 4)
    assert np.array_equal(features, rows[EACH[1]][:, ::2, ::-1])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (np.zeros((3, 2), np.float32), r"example 5 has float32 of shape \(3, 2\) where example 0 has float32 of"),
        (np.zeros((2, 3)), r"example 5 has float64 of shape \(2, 3\) where example 0 has float32 of"),
        (np.zeros((1, 3), np.float32), r"example 5 has float32 of shape \(1, 3\)"),
    ],
)
def test_a_record_of_another_form_is_named(other, words):
    with pytest.raises(DataError, match=words):
        positional_examples(Records([*np.zeros((5, 2, 3), np.float32), other])).load(*EACH)(0, 4)


def test_lengths_that_make_up_for_each_other_are_refused():
    rows = [*np.zeros((60, 2, 3), np.float32)]
    rows[4], rows[5] = np.zeros((1, 3), np.float32), np.zeros((3, 3), np.float32)
    with pytest.raises(DataError, match=r"example 4 has float32 of shape \(1, 3\)"):
        positional_examples(Records(rows)).load(*EACH)(0, 4)


def test_a_smaller_type_is_widened():
    rows = [*np.ones((5, 3), np.float32), np.full(3, 7, np.int8)]
    features, _, _ = positional_examples(Records(rows)).load(*EACH)(0, 4)
    assert features.dtype == np.float32
    assert features[2].tolist() == [7, 7, 7]


@pytest.mark.parametrize("error", [StopIteration, OSError])
def test_the_record_that_fails_is_named(error):
    """StopIteration must not end the batch early."""

    class Failing(Records):
        def __getitem__(self, number):
            if number == 5:
                raise error("bad sector")
            return super().__getitem__(number)

    reader = positional_examples(Failing(np.zeros((60, 2), np.float32))).load(*EACH)
    with pytest.raises(DataError, match=r"the Failing cannot read example 5: .*bad sector"):
        reader(0, 4)


class Picture:
    """An array without a length, as a picture of Pillow is."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


ROWS = np.arange(12, dtype=np.float32).reshape(6, 2)
FORMS = {
    "a dict of one input": lambda row, kind: kind({"x": row, "label": row[0]}),
    "a dict of inputs": lambda row, kind: kind({"x": row, "z": row + 1, "label": row[0], "weight": row[1]}),
    "a dict without a label": lambda row, kind: kind({"x": row, "z": row + 1}),
    "a dict in a tuple": lambda row, kind: (kind({"x": row, "z": {"deep": row[1]}}), row[0]),
    "a dict in a dict": lambda row, kind: kind({"x": kind({"a": row, "b": [row, row]}), "label": row[0]}),
    "a tuple alone": lambda row, kind: (row,),
    "three values": lambda row, kind: (row, row[0], row[1]),
    "no label": lambda row, kind: (row, None, row[1]),
    "a picture": lambda row, kind: (Picture(row), 1),
    "a list": lambda row, kind: (row.tolist(), 1),
}


@pytest.mark.parametrize("form", FORMS)
def test_records_that_are_read_by_columns_equal_records_that_are_read_alone(form):
    """A dict of another type, or a batch of one record, takes another way to the same arrays."""
    at_once, each = (
        [FORMS[form](row, kind) for row in ROWS] for kind in (dict, lambda named: OrderedDict(reversed(named.items())))
    )
    layout = layout_of(at_once[0])
    found = stacked(layout, at_once)
    assert [name for name, _ in leaves(found)] == [name for name, _ in leaves(layout.parts)]
    alone = concatenated([stacked(layout, [element]) for element in each])
    for (name, value), (other_name, other) in zip(leaves(found), leaves(alone), strict=True):
        assert name == other_name
        assert (value.dtype, value.shape) == (other.dtype, other.shape)
        assert np.array_equal(value, other)


@pytest.mark.parametrize(
    ("form", "other", "words"),
    [
        ("a dict of inputs", {"x": ROWS[0], "z": ROWS[0], "label": 1.0}, "example 3 has 'label', 'x', 'z' where"),
        ("a dict of one input", {"x": ROWS[0], "label": ROWS[0]}, r"example 3 has float32 of shape \(2,\) where"),
        ("a dict of one input", {"x": ROWS[0], "y": ROWS[0, 0]}, "example 3 has 'x', 'y' where example 0"),
        ("a dict of one input", (ROWS[0], ROWS[0, 0]), "example 3 has no names where example 0"),
        ("a dict in a tuple", ({"x": ROWS[0]}, ROWS[0, 0]), "example 3 does not have the names 'x', 'z' alone"),
        ("a dict in a tuple", (ROWS[0], ROWS[0, 0]), "example 3 does not have the names 'x', 'z' alone"),
        ("three values", (ROWS[0], ROWS[0, 0]), "example 3 has another structure than example 0"),
        ("a tuple alone", (ROWS[0], ROWS[0, 0]), "example 3 has another structure than example 0"),
        ("a list", (1.0, 1), r"example 3 has float64 of shape \(\) where example 0 has float64 of \(2,\)"),
    ],
    ids=range(9),
)
@pytest.mark.parametrize("alone", [False, True], ids=["one", "all"])
def test_a_record_of_another_structure_is_named(form, other, words, alone):
    """Whether one record of a batch differs from the first record of the data, or all of them do."""
    elements = [FORMS[form](row, dict) for row in ROWS] * 10  # of which a digest reads eight, and not these
    elements[3:6] = [other] * 3 if alone else [other, *elements[4:6]]
    read = positional_examples(elements).load(np.array([[0, 6]]), np.arange(3 if alone else 0, 6))
    with pytest.raises(DataError, match=words):
        read(0, 3 if alone else 6)
