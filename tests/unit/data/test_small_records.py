"""Records that are read one by one become rows of a batch, whatever their shape; faults name the record."""

from __future__ import annotations

import numpy as np
import pytest

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
