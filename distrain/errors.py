r"""Errors that a person can cause, each with the exit code that a script can act on.

Decides: with which exit code a process ends, and how an error of a user's code reads. Never: prints a message, or
decides when to stop.

    >>> from distrain.errors import ERROR_BY_EXIT_CODE, DataError
    >>> DataError("train.csv, row 7: label 9 is outside 1..4; check the label column").exit_code
    3
    >>> ERROR_BY_EXIT_CODE[3].__name__
    'DataError'
    >>> DataError("a.parquet is damaged (bad page\nat 7)")
    DataError('a.parquet is damaged (bad page at 7)')

A message says what was wrong (file, row, value), the rule, and the cure. An error of any other class is a defect of
distrain and may show its traceback.
"""

from __future__ import annotations

import traceback
from typing import Any


class DistrainError(Exception):
    """Base of every error that the user can correct.

    Args:
        *args: the message; the text of a library in it may have several lines, which become one.
        reporting_rank: rank that prints this error when all ranks raise it; None means that every rank prints.

    Attributes:
        exit_code: exit code of the process.
        meaning: what this exit code tells, for the list of exit codes; no docstring, which `python -OO` would drop.
        reporting_rank: as given.
    """

    exit_code = 1
    meaning = "A defect of distrain."

    def __init__(self, *args: object, reporting_rank: int | None = None) -> None:
        super().__init__(*(" ".join(arg.splitlines()) if isinstance(arg, str) else arg for arg in args))
        self.reporting_rank = reporting_rank


class ConfigurationError(DistrainError, ValueError):
    """Raised for a command line or settings that distrain refuses."""

    exit_code = 2
    meaning = "The command, a setting or a combination of settings is wrong."


class DataError(DistrainError):
    """Raised for rows, files or folders of data that distrain refuses."""

    exit_code = 3
    meaning = "The input or the prepared data is wrong, missing or damaged."


class CheckpointError(DistrainError):
    """Raised for a run, or for one of its files."""

    exit_code = 4
    meaning = "A checkpoint or run directory cannot be used."


class RankError(DistrainError):
    """Raised on all ranks that are still there, because they cannot go on together."""

    exit_code = 5
    meaning = "The ranks disagree, or the run lost a rank."


class DivergenceError(DistrainError):
    """Raised on all ranks, before the update that would spread the number."""

    exit_code = 6
    meaning = "Training met a number that is not finite: in a loss, a gradient or a weight."


class StopRequested(DistrainError):  # noqa: N818 - not an error: it ends a run that was asked to end
    """Raised at the step after which a run stops.

    Attributes:
        result: the `training.result.Result` of the run so far, with the model as trained last; None where no model is.
    """

    exit_code = 42
    meaning = "Somebody asked the run to stop; with a run directory, everything is saved and the same command goes on."
    result: Any = None


ERROR_BY_EXIT_CODE: dict[int, type[DistrainError]] = {
    kind.exit_code: kind
    for kind in (ConfigurationError, DataError, CheckpointError, RankError, DivergenceError, StopRequested)
}


def cause(error: BaseException) -> str:
    """Describe an error of a user's code in one line, with the line that raised it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    is_told = isinstance(error, SyntaxError)  # its message names file and line
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames and not is_told else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"
