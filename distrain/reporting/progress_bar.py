"""The live line at the bottom of a terminal.

Decides: which figures fit into the line. Never: when it is drawn.

    bar = ProgressBar(Console())
    bar.show("epoch 1/3", 120, 938, {"loss": 0.25}, began, Mark(time=12.0, step=120, examples=15_360))
    bar.close()
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

BAR_COLUMNS = 12  # leaves room for progress, loss, rate and remaining time in 80 columns


class Mark(NamedTuple):
    """A moment between two steps: where rates are measured from."""

    time: float
    step: int
    examples: int

    def samples_per_second_since(self, earlier: Mark) -> float:
        """Mean rate between two moments; NaN when the clock stood still."""
        seconds = self.time - earlier.time
        return (self.examples - earlier.examples) / seconds if seconds > 0 else math.nan


class ProgressBar:
    """The live line at the bottom of a terminal; it vanishes when it is closed."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(BAR_COLUMNS),
            TextColumn("{task.fields[figures]}", markup=False),
            console=console,
            auto_refresh=False,  # drawn when a step is shown: no thread beside the training
            transient=True,
        )
        self._task = self._progress.add_task("", figures="")
        self._progress.start()

    def show(self, title: str, done: int, steps: int, values: Mapping[str, float], began: Mark, here: Mark) -> None:
        """Draw the bar at step `done` of `steps`, with as many figures as fit into the terminal's width."""
        figures = [f"{done:,}/{steps:,}", *(f"{name} {value:.4f}" for name, value in values.items())]
        if here.step > began.step and here.time > began.time:
            left = (here.time - began.time) / (here.step - began.step) * (steps - done)
            figures[2:2] = [f"{here.samples_per_second_since(began):,.0f}/s", f"{_clock_time(left)} left"]
        room = self._progress.console.width - len(title) - BAR_COLUMNS - 2
        while len(figures) > 1 and len("  ".join(figures)) > room:
            figures.pop()
        self._progress.update(self._task, description=title, completed=done, total=steps, figures="  ".join(figures))
        self._progress.refresh()

    def close(self) -> None:
        """Take the bar off the screen."""
        self._progress.stop()


def _clock_time(seconds: float) -> str:
    """0:05, 12:34 or 1:02:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
