"""Standard streams that are closed, or cannot be written because a disk is full.

Decides: what a lost line of output means to a command. Never: prints a result.

    output = guard_streams()                     # the first thing that the process does
    output.is_needed = False                     # the command's results are files

A command whose result is its output ends with exit code 2. Other commands warn once and go on. A line that standard
error cannot take is left out, and changes no exit code. A closed pipe raises `BrokenPipeError`, for the command line to
judge.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from distrain.errors import ConfigurationError


class OutputError(ConfigurationError):
    """Standard output cannot be written."""


class StandardOutput(io.FileIO):
    """Standard output of this process.

    Attributes:
        is_needed: whether the command fails if its output is lost.
    """

    def __init__(self) -> None:
        super().__init__(1, "wb", closefd=False)
        self.is_needed = True

    def write(self, content: Any) -> int:
        """Write bytes; the first that cannot be written are judged, and all later output is dropped."""
        try:
            return super().write(content)
        except BrokenPipeError:
            raise
        except OSError as error:
            drop_output(self.fileno())
            what = f"standard output cannot be written ({error.strerror})"
            if self.is_needed:
                raise OutputError(f"{what}. Send it to a file with room, or to a terminal, and start again.") from None
            print(f"distrain: warning: {what}; the command goes on without it", file=sys.stderr)
            return len(content)


class _StandardError(io.FileIO):
    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError:
            return len(content)


def guard_streams() -> StandardOutput:
    """Open closed standard streams, so that no file gets their numbers, and guard output and errors of this process."""
    for number, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):  # the first two fail when they are used
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest free number
    output = StandardOutput()
    if sys.stdout is sys.__stdout__:  # else a program catches the output
        sys.stdout = _text(output, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_StandardError(2, "wb", closefd=False), sys.stderr)
    return output


def drop_output(number: int) -> None:
    """Let later output go nowhere, so that the end of the process does not fail once more."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


def _text(raw: io.FileIO, replaced: Any) -> io.TextIOWrapper:
    """Return a text stream that is buffered as the stream that it replaces."""
    is_unbuffered = getattr(replaced, "write_through", False)
    is_line_buffered = getattr(replaced, "line_buffering", True)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(replaced, "encoding", None),
        errors="backslashreplace",  # a name that is no text in this encoding must not end a command
        line_buffering=is_line_buffered or is_unbuffered,
        write_through=is_unbuffered,
    )
