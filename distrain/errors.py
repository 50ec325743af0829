"""Errors that a person can cause, each with the exit code that a script can act on.

Decides: which number the process leaves with. Never: how a message is printed (`cli.py` does) or when to stop.

    >>> from distrain.errors import DataError
    >>> DataError("train.csv, row 7: label 9 is outside 1..4; check the label column").exit_code
    3

A message says what was wrong (file, row, value), the rule, and the cure. Anything that is not a `DistrainError`
is a defect of distrain itself and may show its traceback.
"""

from __future__ import annotations


class DistrainError(Exception):
    """Base of every error that is the user's to mend.

    Attributes:
        exit_code: what the process returns.
        reporting_rank: the rank that tells of it, where all ranks raise the same error; None: whoever raises it.
    """

    exit_code = 1
    reporting_rank: int | None = None


class ConfigurationError(DistrainError, ValueError):
    """The command, a setting or a combination of settings is wrong."""

    exit_code = 2


class DataError(DistrainError):
    """The input or the prepared data is wrong, missing or damaged."""

    exit_code = 3


class CheckpointError(DistrainError):
    """A checkpoint or run directory cannot be used."""

    exit_code = 4


class RankError(DistrainError):
    """The ranks disagree, or one of them was lost."""

    exit_code = 5


class DivergenceError(DistrainError):
    """Training produced a loss that is not finite."""

    exit_code = 6


class StopRequested(DistrainError):  # noqa: N818 - not an error: it ends a run that was asked to end
    """Somebody asked the run to stop; everything is saved and the same command goes on from there."""

    exit_code = 42
