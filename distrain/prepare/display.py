"""The display of `distrain prepare`: a live bar on a terminal, and a line for each finished phase.

Decides: how progress looks. Never: how data is prepared.

    with Display(Console()) as display:
        display.show("reading train.csv", 0.5, "3,300 rows  2.1 MB/s")
        display.say("auto: 6,600 rows / 31 words per row = 212 < 1,500: n-grams")
"""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_LINE_SECONDS = 30.0  # without a terminal, a long phase prints a line in this interval
_DOING_WIDTH = 28  # characters


class Display:
    """Shows one phase after another on `console`; use the display as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
            transient=True,
            redirect_stderr=False,
            expand=True,
        )
        self._task = self._bar.add_task("", detail="", start=False, visible=False)
        self._doing = self._detail = ""
        self._started = self._line_at = time.monotonic()

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def show(self, doing: str, fraction: float | None, detail: str = "") -> None:
        """Show the current phase and its progress, and finish the preceding phase.

        Args:
            doing: name of the phase.
            fraction: part of the phase that is done, 0..1; None if unknown.
            detail: further figures, such as a rate.
        """
        now = time.monotonic()
        if doing != self._doing:
            self.finish()
            self._doing, self._started, self._line_at = doing, now, now
            self._bar.reset(self._task, total=1.0, description=doing[:_DOING_WIDTH], visible=True, detail=detail)
        self._detail = detail
        self._bar.update(self._task, completed=fraction or 0.0, total=None if fraction is None else 1.0, detail=detail)
        if not self._console.is_terminal and now - self._line_at >= _LINE_SECONDS:
            self._line_at = now
            self._line("" if fraction is None else f"{fraction:.0%}", now)

    def finish(self) -> None:
        """End the current phase, and print its line."""
        if self._doing:
            self._line("", time.monotonic())
            self._bar.update(self._task, visible=False)
            self._doing = ""

    def say(self, text: str) -> None:
        """Print `text` on a line of its own."""
        self.finish()
        self._console.print(Text(text))

    def table(self, title: str, header: list[str], rows: list[list[str]]) -> None:
        """Print a small table; the first column is text, and all other columns are numbers."""
        self.finish()
        table = Table(title=Text(title), title_justify="left")
        for number, name in enumerate(header):
            table.add_column(name, justify="right" if number else "left")
        for row in rows:
            table.add_row(*map(Text, row))
        self._console.print(table)

    def _line(self, fraction: str, now: float) -> None:
        fields = [f"{self._doing:{_DOING_WIDTH}}", fraction, self._detail, f"{now - self._started:.1f} s"]
        self._console.print(Text("  ".join(field for field in fields if field)))


class ReadingDisplay:
    """Shows how far the reading of an input is.

    Args:
        display: the display to use.
        name: name of the file or folder that is being read.
        size: number of bytes to read; None if unknown.
    """

    def __init__(self, display: Display, name: str, size: int | None) -> None:
        self._display = display
        self._doing = f"reading {name}"
        self._size = size
        self._started = time.monotonic()

    def update(self, rows: int, num_bytes: int) -> None:
        """Show the number of rows and bytes read so far."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        fraction = min(1.0, num_bytes / self._size) if self._size else None
        self._display.show(self._doing, fraction, f"{rows:,} rows  {num_bytes / 1e6 / seconds:,.1f} MB/s")
