"""The display of `distrain prepare`: a live bar on a terminal, and a line for each finished phase.

Decides: how progress looks. Never: how data is prepared.

    with Display(Console()) as display:
        display.show("reading train.csv", 0.5, "3,300 rows  2.1 MB/s")      # share done; None where nobody
        knows display.say("auto: 6,600 rows / 31 words per row = 212 < 1,500: n-grams")
"""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_LINE_SECONDS = 30.0  # without a terminal, a long task writes a line this often
_DOING_WIDTH = 28


class Display:
    """Shows one task after the other on `console`; use it as a context manager."""

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

    def show(self, doing: str, share: float | None, detail: str = "") -> None:
        """Show the current phase and its progress; the next phase leaves a line of this one behind."""
        now = time.monotonic()
        if doing != self._doing:
            self.finish()
            self._doing, self._started, self._line_at = doing, now, now
            self._bar.reset(self._task, total=1.0, description=doing[:_DOING_WIDTH], visible=True, detail=detail)
        self._detail = detail
        self._bar.update(self._task, completed=share or 0.0, total=None if share is None else 1.0, detail=detail)
        if not self._console.is_terminal and now - self._line_at >= _LINE_SECONDS:
            self._line_at = now
            self._line("" if share is None else f"{share:.0%}", now)

    def finish(self) -> None:
        """End the current phase, and leave its line behind."""
        if self._doing:
            self._line("", time.monotonic())
            self._bar.update(self._task, visible=False)
            self._doing = ""

    def say(self, text: str) -> None:
        """A line of its own."""
        self.finish()
        self._console.print(Text(text))

    def table(self, title: str, header: list[str], rows: list[list[str]]) -> None:
        """A small table; all but the first column are numbers."""
        self.finish()
        table = Table(title=Text(title), title_justify="left")
        for number, name in enumerate(header):
            table.add_column(name, justify="right" if number else "left")
        for row in rows:
            table.add_row(*map(Text, row))
        self._console.print(table)

    def _line(self, share: str, now: float) -> None:
        pieces = [f"{self._doing:{_DOING_WIDTH}}", share, self._detail, f"{now - self._started:.1f} s"]
        self._console.print(Text("  ".join(piece for piece in pieces if piece)))


class ReadingDisplay:
    """Shows how far the reading of one file or folder is.

    Args:
        display: the display to use.
        path: file or folder that is read.
        size: bytes to read; None if unknown.
    """

    def __init__(self, display: Display, path: Path, size: int | None) -> None:
        self._display = display
        self._doing = f"reading {path.name}"
        self._size = size
        self._started = time.monotonic()

    def update(self, rows: int, num_bytes: int) -> None:
        """So many rows and bytes are read."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        share = min(1.0, num_bytes / self._size) if self._size else None
        self._display.show(self._doing, share, f"{rows:,} rows  {num_bytes / 1e6 / seconds:,.1f} MB/s")
