"""The tables of `report.html`: runs compared, settings that differ, epochs.

Decides: which rows and columns a table has. Never: draws charts, or puts the page together.

    html = comparison(runs, names) + differing_settings(runs, names)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

from distrain.reporting.run_history import Run

MAX_TABLE_ROWS = 200
MAX_TABLE_METRICS = 16
MAX_TEXT = 300  # letters of a setting's value
COLOURS = 6
MISSING = "\N{EN DASH}"

# What an event holds besides measures of the model.
NOT_METRICS = {
    "event",
    "step",
    "epoch",
    "time",
    "seconds",
    "steps_per_epoch",
    "samples_per_second",
    "path",
    "best",
}


def duration(seconds: float) -> str:
    """8.3 s, 4 min 05 s, or 2 h 07 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
    return f"{seconds // 3600:,.0f} h {seconds % 3600 // 60:02.0f} min"


def as_number(value: Any) -> float | None:
    """`value` if it is a number, which True is not; else None."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def run_colour(number: int) -> str:
    """CSS colour of the run of that number."""
    return f"var(--run-{number % COLOURS})"


def run_dot(number: int) -> str:
    """A dot in the colour of the run of that number."""
    return f'<i class="dot" style="background:{run_colour(number)}"></i>'


_COLUMNS: list[tuple[str, str, Callable[[float], str], Callable[[Iterable[float]], float] | None]] = [
    ("validation accuracy", "validation_accuracy", lambda value: f"{value:.4f}", max),
    ("validation loss", "validation_loss", lambda value: f"{value:.4f}", min),
    ("epochs", "epochs", lambda value: f"{value:,.0f}", None),
    ("samples/s", "samples_per_second", lambda value: f"{value:,.0f}", max),
    ("training time", "train_seconds", duration, min),
    ("replicas", "num_replicas", lambda value: f"{value:,.0f}", None),
]


def comparison(runs: Sequence[Run], names: Sequence[str]) -> str:
    """A row a run; the best of each column is bold."""
    cells: list[list[str]] = []
    for _, key, text, choose in _COLUMNS:
        values = [run.result(key) for run in runs]
        known = [value for value in values if value is not None]
        best = choose(known) if choose and len(set(known)) > 1 else None
        cells.append(
            [
                f"<td>{MISSING}</td>"
                if value is None
                else f"<td{' class=best' * (value == best)}>{escape(text(value))}</td>"
                for value in values
            ]
        )
    heads = "".join(f"<th>{label}</th>" for label, *_ in _COLUMNS)
    rows = "".join(
        f"<tr><th>{run_dot(number)}{escape(name)}</th>{''.join(column[number] for column in cells)}</tr>"
        for number, name in enumerate(names)
    )
    table = f'<table class="figures"><tr><th>run</th>{heads}</tr>{rows}</table>'
    return f'<section class="card scroll">{table}</section>'


def differing_settings(runs: Sequence[Run], names: Sequence[str]) -> str:
    """A row for each setting in which the runs differ, but where they write to."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    rows = ""
    for key in keys:
        values = [as_text(run.settings.get(key, MISSING)) for run in runs]
        if key != "run" and len(set(values)) > 1:
            rows += f"<tr><th>{as_text(key)}</th>{''.join(f'<td>{value}</td>' for value in values)}</tr>"
    if not rows:
        return '<section class="card empty">All settings are the same in these runs.</section>'
    heads = "".join(f"<th>{run_dot(number)}{escape(name)}</th>" for number, name in enumerate(names))
    return (
        '<section class="card scroll"><h2>Settings that differ</h2>'
        f"<table><tr><th>setting</th>{heads}</tr>{rows}</table></section>"
    )


def details(run: Run, name: str, number: int, *, several: bool) -> str:
    """All that is known of a run, folded up: its epochs, its settings, its result."""
    heading = f"{run_dot(number)}{escape(name)}: " if several else ""
    settings = "".join(
        f"<tr><th>{as_text(key)}</th><td>{as_text(value)}</td></tr>" for key, value in run.settings.items()
    )
    results = "".join(
        f"<tr><th>{as_text(key)}</th><td>{as_text(value)}</td></tr>" for key, value in run.summary.items()
    )
    return (
        _fold(f"{heading}Epochs", _epoch_table(run), opened=not several)
        + _fold(f"{heading}Settings", f"<table>{settings}</table>" if settings else "")
        + _fold(f"{heading}Result", f"<table>{results}</table>" if results else "")
    )


def _fold(title: str, content: str, *, opened: bool = False) -> str:
    if not content:
        return ""
    state = " open" if opened else ""
    content = f'<div class="scroll">{content}</div>'
    return f'<details class="card"{state}><summary>{title}</summary>{content}</details>'


def _epoch_table(run: Run) -> str:
    events = run.history.epochs[-MAX_TABLE_ROWS:]
    if not events:
        return ""
    names = [name for name in events[-1] if name not in NOT_METRICS][:MAX_TABLE_METRICS]
    heads = "".join(f"<th>{as_text(name)}</th>" for name in (*names, "samples/s", "seconds"))
    best = run.best_epoch
    rows = ""
    for event in events:
        cells = [_cell(event.get(name), lambda value: f"{value:.4f}") for name in names]
        cells.append(_cell(event.get("samples_per_second"), lambda value: f"{value:,.0f}"))
        cells.append(_cell(event.get("seconds"), lambda value: f"{value:,.2f}"))
        rows += f"<tr{' class=best' * (event is best)}><td>{event['epoch']:,}</td>{''.join(cells)}</tr>"
    return f'<table class="figures"><tr><th>epoch</th>{heads}</tr>{rows}</table>'


def _cell(value: Any, text: Callable[[float], str]) -> str:
    number = as_number(value)
    return f"<td>{MISSING}</td>" if number is None else f"<td>{escape(text(number))}</td>"


def as_text(value: object) -> str:
    """Any setting or result, escaped and cut."""
    text = MISSING if value is None else str(value)
    return escape(text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + " …")
