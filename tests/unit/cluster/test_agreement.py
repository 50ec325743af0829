"""Agreeing among processes, which are threads here that meet at a barrier."""

from __future__ import annotations

import pytest
from threads_as_processes import on_all

from distrain.cluster.agreement import check_alike, code_digest, max_over_ranks, run_on_all_ranks
from distrain.errors import ConfigurationError, DataError, DistrainError, DivergenceError, RankError


def test_what_all_can_do_is_done():
    assert on_all(3, lambda process: run_on_all_ranks(process, lambda: process.rank * 10)) == [0, 10, 20]


@pytest.mark.parametrize("kind", [ConfigurationError, DataError, DivergenceError])
def test_an_error_on_one_rank_is_raised_on_all_and_told_by_it(kind):
    def act(process):
        def action():
            if process.rank == 1:
                raise kind("shard 7 is damaged")

        run_on_all_ranks(process, action, where="step 4: ")

    errors = on_all(3, act)
    assert [type(error) for error in errors] == [kind] * 3
    assert [str(error) for error in errors] == ["step 4: shard 7 is damaged"] * 3
    assert [error.reporting_rank for error in errors] == [1] * 3


def test_of_several_errors_the_first_rank_tells():
    def act(process):
        def action():
            if process.rank > 0:
                raise DataError(f"bad on {process.rank}")

        run_on_all_ranks(process, action)

    errors = on_all(4, act)
    assert {str(error) for error in errors} == {"bad on 1"}
    assert {error.reporting_rank for error in errors} == {1}


def test_what_is_no_error_of_the_users_keeps_its_traceback_where_it_happened():
    def act(process):
        run_on_all_ranks(process, lambda: 1 // process.rank)

    first, second = on_all(2, act)
    assert type(first) is ZeroDivisionError
    assert type(second) is DistrainError
    assert (second.exit_code, second.reporting_rank) == (1, 0)


def test_equal_facts_are_no_news():
    assert on_all(3, lambda process: check_alike(process, {"seed": "0", "data": "abc"})) == [None] * 3


@pytest.mark.parametrize(
    ("facts_of_rank_2", "words"),
    [
        ({"seed": "1", "data": "abc"}, "rank 2 differs from rank 0 in seed: 1 there, 0 on rank 0"),
        ({"seed": "0", "data": "abd"}, "rank 2 differs from rank 0 in data: abd there, abc on rank 0"),
        ({"seed": "0"}, "rank 2 differs from rank 0 in data: missing there"),
        ({"seed": "0", "data": "abc", "more": "x"}, "in more: x there, missing on rank 0"),
    ],
)
def test_a_difference_names_the_rank_and_the_fact(facts_of_rank_2, words):
    facts = {"seed": "0", "data": "abc"}
    errors = on_all(3, lambda process: check_alike(process, facts_of_rank_2 if process.rank == 2 else facts))
    assert [type(error) for error in errors] == [RankError] * 3
    assert all(words in str(error) for error in errors)
    assert {error.reporting_rank for error in errors} == {0}


def test_the_largest_value_counts():
    assert on_all(3, lambda process: max_over_ranks(process, [0, 2, 1][process.rank])) == [2, 2, 2]


def test_the_code_has_a_digest():
    assert len(code_digest()) == 64
