"""The log of the package: each module logs through `logging.getLogger(__name__)`, below the logger "distrain".

Decides: the form of a line on standard error, and that ranks other than the chief log errors only. Never: what a module
logs.

    with log_to_stderr("warning", rank=0):
        logging.getLogger("distrain.runs").warning("the disk is slow")     # distrain: warning: the disk is slow
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LEVELS = ("debug", "info", "warning", "error")

_PACKAGE = logging.getLogger("distrain")


class _StderrHandler(logging.Handler):
    """Looks `sys.stderr` up at each line, because a live bar replaces that stream while the bar is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            print(f"distrain: {record.levelname.lower()}: {record.getMessage()}", file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


@contextmanager
def log_to_stderr(level: str, *, rank: int) -> Iterator[None]:
    """Write the package's log to standard error, for one command of the command line.

    Args:
        level: least severe level to write, one of `LEVELS`.
        rank: rank of this process.
    """
    handler, before = _StderrHandler(), (_PACKAGE.level, _PACKAGE.propagate)
    _PACKAGE.addHandler(handler)
    _PACKAGE.propagate = False  # a library that gives the root logger a handler would print each line twice
    _PACKAGE.setLevel(level.upper())
    _limit_to_chief(rank)
    try:
        yield
    finally:
        _PACKAGE.removeHandler(handler)
        _PACKAGE.setLevel(before[0])
        _PACKAGE.propagate = before[1]


@contextmanager
def log_of_run(rank: int) -> Iterator[None]:
    """Let the chief alone log warnings of a run; write the log to standard error if the program handles no log.

    Args:
        rank: rank of this process.
    """
    if not _PACKAGE.hasHandlers():
        with log_to_stderr("warning", rank=rank):
            yield
    else:
        _limit_to_chief(rank)
        yield


def _limit_to_chief(rank: int) -> None:
    """Let a process log errors only, unless its rank is 0: all ranks would log the same warnings."""
    if rank > 0:
        _PACKAGE.setLevel(logging.ERROR)
