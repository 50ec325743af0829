"""The live line at the bottom of a terminal.

Decides: which values fit into the line. Never: when the line is drawn.

    bar = ProgressBar(Console())
    bar.show("epoch 1/3", 120, 938, {"loss": 0.25}, began, RatePoint(time=12.0, step=120, examples=15_360))
    bar.close()
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from distrain.reporting.console import figure_text
from distrain.reporting.metrics_log import LEARNING_RATE

BAR_COLUMNS = 12  # leaves room for progress, loss, rate and remaining time in 80 columns


class RatePoint(NamedTuple):
    """One end of a span over which a rate is measured: seconds by any clock, steps and examples so far."""

    time: float
    step: int
    examples: int

    def samples_per_second_since(self, earlier: RatePoint) -> float:
        """Return the mean rate since `earlier`, in examples per second; NaN if no time has passed."""
        seconds = self.time - earlier.time
        return (self.examples - earlier.examples) / seconds if seconds > 0 else math.nan


class ProgressBar:
    """The live line at the bottom of a terminal; `close` removes it."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(BAR_COLUMNS),
            TextColumn("{task.fields[values]}", markup=False),
            console=console,
            auto_refresh=False,  # `show` draws: no second thread competes with training
            transient=True,
        )
        self._task = self._progress.add_task("", values="")
        self._progress.start()

    def show(
        self, title: str, done: int, steps: int, metrics: Mapping[str, Any], began: RatePoint, now: RatePoint
    ) -> None:
        """Draw the bar, with as many values as fit into the terminal's width.

        Args:
            title: Text on the left.
            done: Steps done in this epoch.
            steps: Steps of an epoch.
            metrics: Loss, metrics and learning rate by name.
            began: Start of the span that gives the rate and the remaining time.
            now: End of that span.
        """
        shown = [f"{done:,}/{steps:,}"]
        shown += [f"{name} {figure_text(value)}" for name, value in metrics.items() if name != LEARNING_RATE]
        if now.step > began.step and now.time > began.time:
            left = (now.time - began.time) / (now.step - began.step) * (steps - done)
            shown[2:2] = [f"{now.samples_per_second_since(began):,.0f}/s", f"{_clock_time(left)} left"]
        if LEARNING_RATE in metrics:
            shown.append(f"rate {metrics[LEARNING_RATE]:.3g}")  # the first value to go where there is no room
        room = self._progress.console.width - len(title) - BAR_COLUMNS - 2
        while len(shown) > 1 and len("  ".join(shown)) > room:
            shown.pop()
        self._progress.update(self._task, description=title, completed=done, total=steps, values="  ".join(shown))
        self._progress.refresh()

    def close(self) -> None:
        """Remove the bar from the screen."""
        self._progress.stop()


def _clock_time(seconds: float) -> str:
    """Return seconds as 0:05, 12:34 or 1:02:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
