"""The line that ends a failed command: its kind, its rank, its notes, and which rank prints it."""

from __future__ import annotations

import pytest

from distrain.errors import DataError, RankError, StopRequested
from distrain.reporting.error_line import print_error, world_or_alone


def as_rank(monkeypatch, rank):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", str(rank))
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")


def test_one_process_prints_the_error_with_its_notes(capsys):
    error = DataError("a.csv is empty.")
    error.add_note("It was read on host b.")
    print_error(error)
    assert capsys.readouterr().err == "distrain: error: a.csv is empty. It was read on host b.\n"


def test_a_stop_is_no_error(capsys):
    print_error(StopRequested("stopped at step 7."))
    assert capsys.readouterr().err == "distrain: stopped: stopped at step 7.\n"


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_the_reporting_rank_alone_prints_an_error_of_all_ranks(capsys, monkeypatch, rank):
    as_rank(monkeypatch, rank)
    print_error(RankError("the seeds differ.", reporting_rank=1))
    assert capsys.readouterr().err == ("distrain: error: rank 1: the seeds differ.\n" if rank == 1 else "")


def test_each_rank_prints_an_error_of_its_own(capsys, monkeypatch):
    as_rank(monkeypatch, 3)
    print_error(DataError("a.csv is empty."))
    assert capsys.readouterr().err == "distrain: error: rank 3: a.csv is empty.\n"


def test_a_wrong_environment_counts_as_one_process(monkeypatch):
    as_rank(monkeypatch, 9)
    assert world_or_alone().size == 1
