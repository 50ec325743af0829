"""The log on standard error: one form of line, a least level, and ranks other than the chief that log errors only."""

from __future__ import annotations

import logging

import pytest

from distrain.reporting.logs import LEVELS, log_of_run, log_to_stderr

PACKAGE = logging.getLogger("distrain")


@pytest.fixture(autouse=True)
def unchanged():
    """The next test finds the package's logger as it was."""
    level = PACKAGE.level
    yield
    PACKAGE.setLevel(level)


def log_one_of_each():
    for level in LEVELS:
        logging.getLogger("distrain.runs.directory").log(logging.getLevelName(level.upper()), "100%% of %s", level)


@pytest.mark.parametrize("level", LEVELS)
def test_the_least_level(capsys, level):
    with log_to_stderr(level, rank=0):
        log_one_of_each()
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [f"distrain: {it}: 100% of {it}" for it in LEVELS[LEVELS.index(level) :]]
    assert captured.out == ""


@pytest.mark.parametrize("level", LEVELS)
def test_other_ranks_log_errors_only(capsys, level):
    with log_to_stderr(level, rank=1):
        log_one_of_each()
    assert capsys.readouterr().err == "distrain: error: 100% of error\n"


def test_a_handler_of_the_root_logger_prints_no_line_twice(capsys, caplog):
    with log_to_stderr("warning", rank=0):
        logging.getLogger("distrain.data").warning("once")
    assert capsys.readouterr().err == "distrain: warning: once\n"
    assert caplog.messages == []


def test_the_logger_is_given_back(capsys, caplog):
    before = PACKAGE.level, PACKAGE.propagate, list(PACKAGE.handlers)
    with pytest.raises(OSError, match="full"), log_to_stderr("error", rank=0):
        raise OSError("full")
    assert (PACKAGE.level, PACKAGE.propagate, PACKAGE.handlers) == before
    logging.getLogger("distrain.data").warning("for pytest")
    assert caplog.messages == ["for pytest"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("rank", "logged"), [(0, ["100% of warning", "100% of error"]), (1, ["100% of error"])])
def test_a_program_that_handles_logs_gets_the_log_of_a_run(caplog, capsys, rank, logged):
    with log_of_run(rank):
        log_one_of_each()
    assert caplog.messages == logged
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("rank", "logged"), [(0, ["warning", "error"]), (1, ["error"])])
def test_a_run_in_a_program_that_handles_no_log_writes_to_standard_error(capsys, monkeypatch, rank, logged):
    monkeypatch.setattr(PACKAGE, "propagate", False)  # pytest handles what reaches the root logger
    with log_of_run(rank):
        log_one_of_each()
    assert capsys.readouterr().err.splitlines() == [f"distrain: {it}: 100% of {it}" for it in logged]
