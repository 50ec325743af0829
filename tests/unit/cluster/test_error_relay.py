"""Errors that travel between ranks, which are threads here."""

from __future__ import annotations

import pytest
from threads_as_processes import on_all

from distrain.cluster.error_relay import ErrorRelay, relayed_errors, run_on_all_ranks
from distrain.cluster.process_group import SingleProcess
from distrain.errors import ERROR_BY_EXIT_CODE, DataError, DistrainError, RankError


def test_without_an_error_each_rank_has_its_own_result():
    assert on_all(3, lambda group: run_on_all_ranks(group, lambda: group.rank * 10)) == [0, 10, 20]


@pytest.mark.parametrize("kind", ERROR_BY_EXIT_CODE.values())
def test_an_error_on_one_rank_is_raised_on_all_and_reported_by_it(kind):
    def act(group):
        def action():
            if group.rank == 1:
                raise kind("shard 7 is damaged")

        run_on_all_ranks(group, action, where="step 4: ")

    errors = on_all(3, act)
    assert [type(error) for error in errors] == [kind] * 3
    assert [str(error) for error in errors] == ["step 4: shard 7 is damaged"] * 3
    assert [error.reporting_rank for error in errors] == [1] * 3


def test_of_several_errors_the_lowest_rank_reports():
    def act(group):
        def action():
            if group.rank > 0:
                raise DataError(f"bad on {group.rank}")

        run_on_all_ranks(group, action)

    errors = on_all(4, act)
    assert {str(error) for error in errors} == {"bad on 1"}
    assert {error.reporting_rank for error in errors} == {1}


def test_a_defect_keeps_its_traceback_where_it_happened():
    first, second = on_all(2, lambda group: run_on_all_ranks(group, lambda: 1 // group.rank))
    assert type(first) is ZeroDivisionError
    assert type(second) is DistrainError
    assert (second.exit_code, second.reporting_rank) == (1, 0)


def gather_then_fail(failing, error, **settings):
    """A rank that gathers once; then ranks of `failing` raise `error(rank)`, and the others gather once more."""

    def act(group):
        relay = ErrorRelay(group, **settings)
        with relayed_errors(relay):
            assert relay.all_gather_bytes(str(group.rank).encode()) == [b"0", b"1", b"2"]
            assert relay.broadcast(b"-" if group.rank == 0 else b"") == b"-"
            if group.rank in failing:
                raise error(group.rank)
            relay.barrier()

    return act


def test_the_next_exchange_of_the_others_raises_an_error_of_the_block():
    errors = on_all(3, gather_then_fail({1, 2}, lambda rank: DataError(f"row {rank} is wrong")))
    assert [type(error) for error in errors] == [DataError] * 3
    assert [str(error) for error in errors] == ["row 1 is wrong"] * 3
    assert [error.reporting_rank for error in errors] == [1] * 3


def test_a_relay_may_name_the_rank_that_reports():
    errors = on_all(3, gather_then_fail({2}, lambda rank: DataError("row 2 is wrong"), reporting_rank=0))
    assert [error.reporting_rank for error in errors] == [0] * 3


def test_an_error_that_all_ranks_know_is_not_relayed_again():
    errors = on_all(3, gather_then_fail({0, 1, 2}, lambda rank: RankError("lost", reporting_rank=rank)))
    assert [error.reporting_rank for error in errors] == [0, 1, 2]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_signal_ends_the_other_ranks(kind):
    ended = []
    relay = ErrorRelay(SingleProcess(), end_peers=lambda: ended.append(True))
    with pytest.raises(kind), relayed_errors(relay):
        raise kind
    assert ended == [True]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_signal_inside_a_kernel_keeps_its_class(kind):
    with pytest.raises(kind), relayed_errors(SingleProcess()):
        raise SystemError("returned a result with an exception set") from kind()
    with pytest.raises(SystemError), relayed_errors(SingleProcess()):
        raise SystemError("something else")
