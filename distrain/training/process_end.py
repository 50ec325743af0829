"""How a process ends after training, or by an error that nothing caught.

Decides: message and exit code of such an end. Never: which errors there are.

    end_script_by_exit_code()                    # a script that calls distrain.fit
    end_at_once(error)                           # one of many processes, after an error
    end_rank(0)                                  # one of many processes, after training

A script may catch every error itself; the hook sees uncaught errors alone.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from distrain.cluster.signals import ignore_stop
from distrain.errors import DistrainError
from distrain.reporting.error_line import print_error, world_or_alone


def end_script_by_exit_code() -> None:
    """Let an uncaught `DistrainError` end this process by one line and its exit code; other errors stay as they are."""
    if not isinstance(sys.excepthook, _ExceptHook):
        sys.excepthook = _ExceptHook(sys.excepthook)


@dataclass(frozen=True)
class _ExceptHook:
    """Ends a script by the exit code of a `DistrainError`.

    Attributes:
        previous: the hook for all other errors.
    """

    previous: Callable[[type[BaseException], BaseException, TracebackType | None], object]

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        is_interactive = hasattr(sys, "ps1")  # the session goes on after the error
        if not isinstance(error, DistrainError) or is_interactive:
            self.previous(kind, error, trace)
            return
        if world_or_alone().size > 1:
            end_at_once(error)
        print_error(error)
        ignore_stop()
        raise SystemExit(error.exit_code)


def end_at_once(error: Exception) -> None:
    """End one of many processes without Python's normal exit.

    A normal exit takes seconds with TensorFlow, while launchers wait five seconds at most after a request to stop. A
    normal exit also waits for the other processes, which may be gone.
    """
    code = DistrainError.exit_code
    if isinstance(error, DistrainError):
        print_error(error)
        code = error.exit_code
        if error.reporting_rank is not None:
            end_rank(code)
    else:
        traceback.print_exception(error)
    _exit(code)


def end_rank(code: int) -> None:
    """End one of many processes together with all others, within a minute; all processes must call this."""
    from distrain.distribution.choose import leave

    ignore_stop()
    leave(code)
    _exit(code)


def _exit(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
