"""The console of a run: plain lines, and one line for each epoch.

Decides: how an epoch reads as text, and that a closed standard output raises `BrokenPipeError` for the command line
to judge. Never: when something is printed.

    >>> epoch_line(1, 3, {"loss": 0.5}, samples_per_second=41_234.0, seconds=2.08)
    'epoch 1/3  loss 0.5000  41,234 samples/s  2.1 s'
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from distrain.reporting.metrics_log import LEARNING_RATE

MAX_ITEMS = 8  # of a list of figures in a line
_SMALL = 0.001  # of a smaller figure four decimals would show one digit or none


class _Console(Console):
    def on_broken_pipe(self) -> None:  # rich would leave with exit code 1 and no message
        raise BrokenPipeError


def open_console(*, is_quiet: bool = False, is_plain: bool = False) -> Console:
    """Return a console on standard output.

    Args:
        is_quiet: whether the console prints nothing.
        is_plain: whether the console prints lines alone, even on a terminal.
    """
    return _Console(quiet=is_quiet, force_terminal=False if is_plain or is_quiet else None)


def print_line(console: Console, text: str) -> None:
    """Print one line as it stands: unstyled, and wrapped by the terminal alone."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def figure_text(value: Any) -> str:
    """Return a figure with four decimals, or more if it is small; of a list, each of the first items."""
    if not isinstance(value, list):
        return f"{value:.4f}" if value == 0 or abs(value) >= _SMALL else f"{value:.2e}"
    items = [figure_text(item) for item in value[:MAX_ITEMS]] + ["..."] * (len(value) > MAX_ITEMS)
    return f"[{' '.join(items)}]"


def epoch_line(
    epoch: int, num_epochs: int, metrics: Mapping[str, Any], *, samples_per_second: float, seconds: float
) -> str:
    """Return the line that reports a finished epoch."""
    shown = [f"{name} {figure_text(value)}" for name, value in metrics.items() if name != LEARNING_RATE]
    speed = [f"{samples_per_second:,.0f} samples/s", f"{seconds:.1f} s"]
    return "  ".join([f"epoch {epoch}/{num_epochs}", *shown, *speed])
