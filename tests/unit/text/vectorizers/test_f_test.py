"""F values against scikit-learn, ties, and the bound on the rows of a feature."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_selection import f_classif, f_regression

from distrain.text.vectorizers.f_test import best, class_scores, label_scores, least_rows, number_scores
from distrain.text.vectorizers.group_sums import GroupSums
from distrain.text.vectorizers.tfidf_kernels import slot_of


def test_scores_that_differ_by_rounding_are_equal():
    keys = np.arange(4)
    assert best(np.array([1.0, 1.0 + 1e-15, 1.0 - 1e-15, 0.5]), keys, 1).tolist() == [2]
    assert best(np.array([1.0, 1.0 + 1e-15, 1.0 - 1e-15, 0.5]), keys[::-1], 1).tolist() == [0]
    assert best(np.array([1.0, 1.0 + 1e-9, 1.0]), keys[:3], 1).tolist() == [1]
    assert best(np.array([np.nan, 0.0, np.inf, np.nan]), keys, 3).tolist() == [1, 2, 3]


def sums_of(values, members, *, room, scale=1.0):
    """Sums of dense values [rows, features] by group, in lines of `room` slots; members: [rows, groups] of booleans."""
    num_groups = members.shape[1]
    sums = GroupSums.empty(np.full(values.shape[1], room), num_groups)
    for feature, row, group in np.argwhere((values.T[:, :, None] != 0) & members[None]):
        slot = slot_of(sums.offsets, sums.groups, num_groups, feature, group)
        sums.groups[slot] = group
        sums.sums[slot] += np.rint(np.array([values[row, feature], values[row, feature] ** 2]) * scale).astype(np.int64)
    return sums


SCALE = 2.0**40


@pytest.mark.parametrize("room", [3, 4, 7])
def test_class_scores_are_those_of_a_dense_table(room):
    rng = np.random.default_rng(0)
    values, labels = rng.random((60, 6)), rng.integers(0, 7, 60)
    values *= np.isin(labels, rng.choice(7, 3, replace=False))[:, None]  # each feature meets three of seven classes
    sums = sums_of(values, labels[:, None] == np.arange(7), room=room, scale=SCALE)
    scores = class_scores(sums, np.bincount(labels), scale=SCALE)
    assert scores == pytest.approx(f_classif(values, labels)[0], rel=1e-9)
    dense = sums_of(values, labels[:, None] == np.arange(7), room=7, scale=SCALE)
    assert np.array_equal(class_scores(dense, np.bincount(labels), scale=SCALE), scores)


@pytest.mark.parametrize("room", [20, 41])
def test_label_scores_are_the_largest_of_each_label(room):
    rng = np.random.default_rng(0)
    values = np.zeros((80, 5))
    for feature in range(5):
        values[rng.choice(80, 4, replace=False), feature] = rng.random(4)
    members = np.zeros((80, 40), bool)
    for row in range(80):  # a line of 20 slots has room for four labels and the group of all rows
        members[row, np.minimum(rng.geometric(0.2, 3), 38)] = True
    members[:, 39] = True  # the first label has no row, and the last has each row
    assert not members[:, 0].any()
    sums = sums_of(values, np.column_stack([members, np.ones(80, bool)]), room=room, scale=SCALE)
    scores = label_scores(sums, members.sum(axis=0), 80, scale=SCALE)
    some = [label for label in range(1, 39) if members[:, label].any()]
    expected = np.max([f_classif(values, members[:, label])[0] for label in some], axis=0)
    assert scores == pytest.approx(expected, rel=1e-9)


def test_a_label_whose_rows_lack_a_feature_scores_too():
    values = np.zeros((30, 1))
    values[10:, 0] = np.random.default_rng(0).uniform(0.5, 0.6, 20)
    rows = np.arange(30)
    members = np.stack([rows < 10, rows < 3, rows % 7 == 6], axis=1)  # nearly all rows without the first label have it
    # A line of three slots for four groups has none for a label without the feature.
    sums = sums_of(values, np.column_stack([members, np.ones(30, bool)]), room=3, scale=SCALE)
    every = [f_classif(values, labels)[0][0] for labels in members.T]
    assert max(every) == every[0]
    assert label_scores(sums, members.sum(axis=0), 30, scale=SCALE) == pytest.approx(every[:1], rel=1e-9)


def test_two_rows_do_not_vary_within_their_groups():
    sums = sums_of(np.array([[0.7], [0.1]]), np.array([[True, True], [False, True]]), room=2, scale=SCALE)
    assert label_scores(sums, np.array([1]), 2, scale=SCALE).tolist() == [np.inf]


def test_number_scores_are_those_of_a_regression():
    rng = np.random.default_rng(0)
    values, targets = rng.random((50, 6)), rng.normal(7, 3, 50)
    values[:, 0] += targets
    standard = (targets - targets.mean()) / targets.std()
    sums = np.stack([values.sum(0), (values**2).sum(0), standard @ values], axis=1)
    assert number_scores(sums * 1024, 50, scale=1024) == pytest.approx(f_regression(values, targets)[0], rel=1e-9)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0.001, 1)), min_size=1, max_size=12),
    st.tuples(*3 * [st.integers(0, 30)]),
)
def test_a_feature_is_in_as_many_rows_as_its_score_takes(entries, more_rows):
    sums, class_sizes = GroupSums.empty(np.array([3]), 3), np.array(more_rows) + 2
    for label, value in entries:
        sums.groups[label] = label
        sums.sums[label] += np.rint(np.array([value, value * value]) * SCALE).astype(np.int64)
        class_sizes[label] += 1
    assert least_rows(class_scores(sums, class_sizes, scale=SCALE)[0], class_sizes) <= len(entries)


def test_the_least_rows_of_a_score():
    # All squares between the classes, in a class of 100 of 1,000: r = n / 100, and the score r / (1 - r) x 998.
    assert least_rows(998 / 9, np.array([100, 900])) == 9  # r = 1/10, less what rounding may be
    assert least_rows(998.1 / 9, np.array([100, 900])) == 10
    for unknown in (np.nan, np.inf, 0.0, -1e-9):
        assert least_rows(unknown, np.array([100, 900])) == 0
