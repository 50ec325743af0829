"""Checks that ranks agree; the ranks are threads here."""

from __future__ import annotations

import pytest
from threads_as_processes import on_all

from distrain.cluster.agreement import check_alike, code_digest, max_over_ranks
from distrain.errors import RankError


def test_equal_values_raise_nothing():
    assert on_all(3, lambda group: check_alike(group, {"seed": "0", "data": "abc"})) == [None] * 3


@pytest.mark.parametrize(
    ("values_of_rank_2", "words"),
    [
        ({"seed": "1", "data": "abc"}, "rank 2 differs from rank 0 in seed: 1 there, 0 on rank 0"),
        ({"seed": "0", "data": "abd"}, "rank 2 differs from rank 0 in data: abd there, abc on rank 0"),
        ({"seed": "0"}, "rank 2 differs from rank 0 in data: missing there"),
        ({"seed": "0", "data": "abc", "more": "x"}, "in more: x there, missing on rank 0"),
    ],
)
def test_a_difference_names_the_rank_and_the_value(values_of_rank_2, words):
    values = {"seed": "0", "data": "abc"}
    errors = on_all(3, lambda group: check_alike(group, values_of_rank_2 if group.rank == 2 else values))
    assert [type(error) for error in errors] == [RankError] * 3
    assert all(words in str(error) for error in errors)
    assert {error.reporting_rank for error in errors} == {0}


def test_max_over_ranks():
    assert on_all(3, lambda group: max_over_ranks(group, [0, 2, 1][group.rank])) == [2, 2, 2]


def test_the_code_has_a_digest():
    assert len(code_digest()) == 64
