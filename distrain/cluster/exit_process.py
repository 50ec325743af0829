"""The end of a process whose main thread may be blocked.

Decides: how such a process prints its last message and ends. Never: whether a process ends, or with which code.

    exit_process(5, "rank 2 was lost. Start the same command again.")      # does not return
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading


def exit_process(code: int, message: str | None) -> None:
    """End this process at once, whatever its main thread does.

    Args:
        code: exit code.
        message: printed on standard error before; None prints nothing.
    """

    def print_message() -> None:
        with contextlib.suppress(OSError, ValueError):  # the reader has left
            # `sys.stderr` may belong to a live display, whose lock the main thread holds.
            if message is not None and sys.__stderr__ is not None:
                new_line = "\n" if sys.__stderr__.isatty() else ""
                print(f"{new_line}distrain: error: {message}", file=sys.__stderr__, flush=True)
            if sys.stdout is not None:
                sys.stdout.flush()

    # The main thread may hold a stream's lock, and a stopped reader may block a write. Neither may delay the exit.
    printer = threading.Thread(target=print_message, daemon=True)
    printer.start()
    printer.join(2.0)
    os._exit(code)
