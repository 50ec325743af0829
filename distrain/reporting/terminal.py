"""The console that commands print to.

Decides: what a closed standard output means: `BrokenPipeError`, for `cli.py` to judge. Never: prints by itself.

    open_console().print("done")
"""

from __future__ import annotations

from rich.console import Console


class _Console(Console):
    def on_broken_pipe(self) -> None:  # rich would leave with exit code 1 and no word
        raise BrokenPipeError


def open_console() -> Console:
    """A console on standard output."""
    return _Console()
