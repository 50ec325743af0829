"""The charts of `report.html`: one for each metric, the learning rate and the throughput, over the epochs trained.

Decides: which values, marks and colours a chart has, and what its legend explains. Never: how a line is drawn.

    for chart in charts(runs):
        chart.title, chart.svg
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from distrain.reporting.history import Event
from distrain.reporting.html.svg import ChartMark, Series, line_chart
from distrain.reporting.html.tables import NOT_METRICS, as_number, numbers_in
from distrain.reporting.metrics_log import LEARNING_RATE
from distrain.reporting.run_history import Run

MAX_CHARTS = 8
MAX_MARKS = 60  # of a kind and run: more marks hide the lines
MAX_VALUES = 12  # lines of a figure that has several values, such as a precision per class
NUM_COLOURS = 6  # the style sheet names as many


class Chart(NamedTuple):
    """A drawn chart; the SVG holds numbers only, so it needs no escaping."""

    title: str
    svg: Markup


class LegendEntry(NamedTuple):
    """A line or mark of the charts: its CSS class, its colour and its meaning."""

    css_class: str
    colour: str
    text: str


def run_colour(number: int) -> str:
    """Return the CSS colour of a run by its number, from 0."""
    return f"var(--run-{number % NUM_COLOURS})"


def charts(runs: Sequence[Run]) -> list[Chart]:
    """Draw the charts; none if no run has logged a step or an epoch."""
    if not any(run.history.steps or run.history.epochs for run in runs):
        return []
    metrics = [_draw(metric, metric, runs) for metric in metrics_of(runs)[: MAX_CHARTS - 2]]
    rates = [_draw_learning_rate(runs)] if _have(runs, LEARNING_RATE) else []
    return [*metrics, *rates, _draw("samples per second", "samples_per_second", runs, from_zero=True)]


def legend(runs: Sequence[Run]) -> list[LegendEntry]:
    """Return the meaning of the lines and marks that the charts have."""
    training, validation = _colours(0, 1) if len(runs) == 1 else ("var(--ink)", "var(--ink)")
    entries = [
        LegendEntry("line dashed", training, "training, mean of the epoch"),
        LegendEntry("line faint", training, "training, by step"),
        LegendEntry("line", validation, "validation"),
    ]
    if any(run.best_epoch for run in runs):
        entries.append(LegendEntry("ring", validation, "best epoch"))
    if any(run.history.checkpoints for run in runs):
        entries.append(LegendEntry("tick", training, "checkpoint"))
    if any(run.history.resumes for run in runs):
        entries.append(LegendEntry("line dotted", training, "resumed"))
    return entries


def metrics_of(runs: Sequence[Run]) -> list[str]:
    """Return the names of the trained metrics: loss, accuracy, then the others in order of appearance."""
    found = dict.fromkeys(
        name.removeprefix("val_")
        for event in _first_events(runs)
        for name, value in event.items()
        if name not in NOT_METRICS and not isinstance(value, (str, bool))
    )
    first = [name for name in ("loss", "accuracy") if name in found]
    return first + [name for name in found if name not in first]


def _have(runs: Sequence[Run], name: str) -> bool:
    return any(as_number(event.get(name)) is not None for event in _first_events(runs))


def _first_events(runs: Sequence[Run]) -> list[Event]:
    return [event for run in runs for event in (*run.history.epochs[:1], *run.history.steps[:1])]


def _draw(title: str, name: str, runs: Sequence[Run], *, from_zero: bool = False) -> Chart:
    series: list[Series] = []
    marks: list[ChartMark] = []
    figures = [event.get(each) for event in _first_events(runs) for each in (name, f"val_{name}")]
    num_values = max(len(numbers_in(figure)) for figure in figures)
    for number, run in enumerate(runs):
        training, validation = _colours(number, len(runs))
        evaluations = _merged(run.history.evaluations, run.history.epochs)
        for at in range(min(num_values, MAX_VALUES)):
            series += [
                _series(run, run.history.steps, name, training, at, faint=True),
                _series(run, run.history.epochs, name, training, at, dashed=True),
                _series(run, evaluations, f"val_{name}", validation, at),
            ]
        best = run.best_epoch
        value = as_number(best.get(f"val_{name}")) if best else None
        if best and value is not None:
            marks.append(ChartMark("best", run.epochs_trained(best), validation, value))
        marks += _marks(run, training)
    svg = line_chart([line for line in series if line.x], marks, from_zero=from_zero)
    if num_values > 1:
        title += f", {f'the first {MAX_VALUES} of' if num_values > MAX_VALUES else 'all'} {num_values:,} values"
    return Chart(title, Markup(svg))


def _draw_learning_rate(runs: Sequence[Run]) -> Chart:
    """Draw one line for each run, because the rate of an epoch is no mean."""
    series, marks = [], []
    for number, run in enumerate(runs):
        colour, _ = _colours(number, len(runs))
        series.append(_series(run, _merged(run.history.steps, run.history.epochs), LEARNING_RATE, colour))
        marks += _marks(run, colour)
    return Chart("learning rate", Markup(line_chart([line for line in series if line.x], marks, from_zero=True)))


def _merged(*kinds: Sequence[Event]) -> list[Event]:
    """Return the events of several kinds in order of their steps; of one step, the event of the last kind."""
    by_step = {event["step"]: event for events in kinds for event in events}
    return [by_step[step] for step in sorted(by_step)]


def _series(run: Run, events: Sequence[Event], name: str, colour: str, at: int = 0, **style: bool) -> Series:
    """Return value number `at` of a figure over the epochs trained; empty if no event has the value."""
    values = [next(iter(numbers_in(event.get(name))[at:]), None) for event in events]
    if all(value is None for value in values):
        return Series([], [], colour, **style)
    y = [math.nan if value is None else value for value in values]
    return Series([run.epochs_trained(event) for event in events], y, colour, **style)


def _marks(run: Run, colour: str) -> list[ChartMark]:
    kinds = {"checkpoint": run.history.checkpoints, "resume": run.history.resumes}
    return [
        ChartMark(kind, run.epochs_trained(event), colour)
        for kind, events in kinds.items()
        for event in events[:: len(events) // MAX_MARKS + 1]
    ]


def _colours(number: int, num_runs: int) -> tuple[str, str]:
    """Return the colours of training and validation: two for a single run, else one for each run."""
    return (run_colour(0), run_colour(1)) if num_runs == 1 else (run_colour(number), run_colour(number))
