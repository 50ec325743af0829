"""F values against scikit-learn, ties, and the bound on the rows of a feature."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_selection import f_classif

from distrain.text.vectorizers.f_test import best, f_scores, least_rows


def test_scores_that_differ_by_rounding_are_equal():
    keys = np.arange(4)
    assert best(np.array([1.0, 1.0 + 1e-15, 1.0 - 1e-15, 0.5]), keys, 1).tolist() == [2]
    assert best(np.array([1.0, 1.0 + 1e-15, 1.0 - 1e-15, 0.5]), keys[::-1], 1).tolist() == [0]
    assert best(np.array([1.0, 1.0 + 1e-9, 1.0]), keys[:3], 1).tolist() == [1]
    assert best(np.array([np.nan, 0.0, np.inf, np.nan]), keys, 3).tolist() == [1, 2, 3]


def test_f_scores_are_those_of_a_dense_table():
    rng = np.random.default_rng(0)
    values, labels = rng.random((50, 6)), rng.integers(0, 3, 50)
    sums = np.stack([[values[labels == k].sum(0), (values[labels == k] ** 2).sum(0)] for k in range(3)]).transpose(
        2, 0, 1
    )
    assert f_scores(sums, np.bincount(labels)) == pytest.approx(f_classif(values, labels)[0], rel=1e-12)
    assert np.array_equal(f_scores(1024 * sums, np.bincount(labels), scale=1024), f_scores(sums, np.bincount(labels)))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0.001, 1)), min_size=1, max_size=12),
    st.tuples(*3 * [st.integers(0, 30)]),
)
def test_a_feature_is_in_as_many_rows_as_its_score_takes(entries, more_rows):
    sums, class_sizes = np.zeros((1, 3, 2)), np.array(more_rows) + 2
    for label, value in entries:
        sums[0, label] += value, value * value
        class_sizes[label] += 1
    assert least_rows(f_scores(sums, class_sizes)[0], class_sizes) <= len(entries)


def test_the_least_rows_of_a_score():
    # All squares between the classes, in a class of 100 of 1,000: r = n / 100, and the score r / (1 - r) x 998.
    assert least_rows(998 / 9, np.array([100, 900])) == 9  # r = 1/10, less what rounding may be
    assert least_rows(998.1 / 9, np.array([100, 900])) == 10
    for unknown in (np.nan, np.inf, 0.0, -1e-9):
        assert least_rows(unknown, np.array([100, 900])) == 0
