"""`report.html`: one run in pictures, or several side by side. One file that needs no network and no script.

Decides: what the page shows of a run. Never: changes anything in a run directory but the page itself.

    write_report([Path("runs/a"), Path("runs/b")], Path("report.html"))

Everything that comes out of a run directory is escaped, and its size on the page is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from distrain.errors import ConfigurationError
from distrain.files import atomic_write
from distrain.reporting.history import Event
from distrain.reporting.html.charts import ChartMark, Series, line_chart
from distrain.reporting.html.style import STYLE
from distrain.reporting.html.tables import (
    MAX_TEXT,
    NOT_METRICS,
    as_number,
    comparison,
    details,
    differing_settings,
    duration,
    run_colour,
    run_dot,
)
from distrain.reporting.run_history import Run, load_run

MAX_CHART_POINTS = 3000  # of all runs together in a chart: keeps a page with long runs below a megabyte
MAX_CHARTS = 8
MAX_MARKS = 60  # of a kind and run: more of them hide the lines


def write_report(run_dirs: Sequence[Path], out: Path) -> None:
    """Write the page.

    Args:
        run_dirs: run directories, finished or not; a run without metrics is shown as such.
        out: the file to write, beside and renamed.

    Raises:
        CheckpointError: one of `run_dirs` is missing, is no run directory, or is damaged.
        ConfigurationError: there is no run, or `out` cannot be written.
    """
    if not run_dirs:
        raise ConfigurationError("no run is named; name at least one run directory.")
    capacity = max(100, MAX_CHART_POINTS // len(run_dirs))
    runs = [load_run(Path(folder), capacity=capacity) for folder in run_dirs]
    out = Path(out)
    try:
        with atomic_write(out, durable=False) as tmp_path:
            tmp_path.write_text(render(runs), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{out}: cannot be written ({error.strerror}); name another file with --out."
        ) from error


def render(runs: Sequence[Run]) -> str:
    """The page as text; the same runs give the same text."""
    names = unique_names([run.folder for run in runs])
    title = names[0] if len(runs) == 1 else f"{len(runs)} runs side by side"
    several = len(runs) > 1
    body = [_header(title, "" if several else _state(runs[0]))]
    body.append(comparison(runs, names) if several else _tiles(runs[0]))
    body.append(_charts(runs, names))
    if several:
        body.append(differing_settings(runs, names))
    for number, (run, name) in enumerate(zip(runs, names, strict=True)):
        body.append(details(run, name, number, several=several))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} · distrain</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def unique_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell all of them apart."""
    paths = [folder.resolve().parts[1:] or ("/",) for folder in folders]
    for length in range(1, max(map(len, paths)) + 1):
        names = ["/".join(path[-length:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            break
    return names


# The head of the page.


def _header(title: str, lead: str) -> str:
    return f'<header><p class="brand">distrain</p><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p></header>'


def _tiles(run: Run) -> str:
    tiles = "".join(
        f'<div class="tile"><div class="figure">{escape(figure)}</div>'
        f'<div class="label">{escape(label)}</div>'
        f'<div class="hint">{escape(hint[:MAX_TEXT])}</div></div>'
        for label, figure, hint in _key_figures(run)
    )
    return f'<section class="tiles">{tiles}</section>'


def _key_figures(run: Run) -> Iterable[tuple[str, str, str]]:
    """(label, figure, hint) of what there is to tell."""
    best = run.best_epoch
    accuracy, loss = run.result("validation_accuracy"), run.result("validation_loss")
    if accuracy is not None:
        yield "validation accuracy", f"{accuracy:.4f}", f"best epoch {best['epoch']}" if best else ""
    if loss is not None:
        yield "validation loss", f"{loss:.4f}", f"best epoch {best['epoch']}" if best else ""
    epochs, steps = run.result("epochs"), run.result("global_steps")
    if epochs is not None:
        yield "epochs", f"{epochs:,.0f}", f"{steps:,.0f} steps" if steps is not None else ""
    rate, examples = run.result("samples_per_second"), run.result("examples_trained")
    if rate is not None:
        yield "samples per second", f"{rate:,.0f}", f"{examples:,.0f} in all" if examples is not None else ""
    seconds = run.result("train_seconds")
    if seconds is not None:
        yield "training time", duration(seconds), "without evaluation"
    replicas = run.result("num_replicas")
    if replicas is not None:
        yield (
            "replicas",
            f"{replicas:,.0f}",
            str(run.summary.get("strategy") or run.settings.get("strategy") or ""),
        )


def _state(run: Run) -> str:
    """One sentence: when it ran and how it ended."""
    began, ended = run.time_span
    span = f"{_date(began)} to {_date(ended)} UTC" if began is not None and ended is not None else ""
    if run.history.stops:
        state = f"Ended: {run.history.stops[-1].get('reason')}"
    elif began is None:
        state = "No step has been logged yet"
    else:
        state = "Unfinished: still training, or killed"
    damaged = run.history.damaged_lines
    trouble = f"{damaged:,} damaged line{'s' * (damaged > 1)} of metrics.jsonl passed over" if damaged else ""
    return " · ".join(part[:MAX_TEXT] for part in (span, state, trouble) if part)


def _date(time: float) -> str:
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return "?"


# The charts.


def _charts(runs: Sequence[Run], names: Sequence[str]) -> str:
    if not any(run.history.steps or run.history.epochs for run in runs):
        return '<section class="card empty">Nothing to draw yet: no step or epoch has been logged.</section>'
    figures = [_metric_chart(runs, metric) for metric in metrics_of(runs)[: MAX_CHARTS - 1]]
    figures.append(_throughput_chart(runs))
    return f'<section class="charts">{"".join(figures)}{_legend(runs, names)}</section>'


def metrics_of(runs: Sequence[Run]) -> list[str]:
    """Names of what was measured in training: loss, accuracy, then the rest in order of appearance."""
    events = [event for run in runs for event in (*run.history.epochs[:1], *run.history.steps[:1])]
    found = dict.fromkeys(
        name.removeprefix("val_")
        for event in events
        for name, value in event.items()
        if name not in NOT_METRICS and not isinstance(value, (str, bool))
    )
    first = [name for name in ("loss", "accuracy") if name in found]
    return first + [name for name in found if name not in first]


def _metric_chart(runs: Sequence[Run], metric: str) -> str:
    series: list[Series] = []
    marks: list[ChartMark] = []
    for number, run in enumerate(runs):
        training, validation = _colours(number, len(runs))
        series += [
            _series(run.history.steps, metric, run.epochs_trained, training, faint=True),
            _series(run.history.epochs, metric, run.epochs_trained, training, dashed=True),
            _series(run.history.epochs, f"val_{metric}", run.epochs_trained, validation),
        ]
        best = run.best_epoch
        value = as_number(best.get(f"val_{metric}")) if best else None
        if best and value is not None:
            marks.append(ChartMark("best", run.epochs_trained(best), validation, value))
        marks += _marks(run, training)
    return _figure(metric, series, marks)


def _throughput_chart(runs: Sequence[Run]) -> str:
    series: list[Series] = []
    marks: list[ChartMark] = []
    for number, run in enumerate(runs):
        colour, _ = _colours(number, len(runs))
        series += [
            _series(run.history.steps, "samples_per_second", run.epochs_trained, colour, faint=True),
            _series(run.history.epochs, "samples_per_second", run.epochs_trained, colour, dashed=True),
        ]
        marks += _marks(run, colour)
    return _figure("samples per second", series, marks, from_zero=True)


def _figure(title: str, series: list[Series], marks: list[ChartMark], *, from_zero: bool = False) -> str:
    series = [line for line in series if line.x]
    chart = line_chart(series, marks, from_zero=from_zero)
    return (
        f'<figure class="card"><figcaption>{escape(title[:MAX_TEXT])}</figcaption>{chart}'
        '<p class="axis">epochs</p></figure>'
    )


def _series(
    events: Sequence[Event], name: str, progress: Callable[[Event], float], colour: str, **look: bool
) -> Series:
    """One value of the events by the epochs trained; empty where none has it."""
    values = [as_number(event.get(name)) for event in events]
    if all(value is None for value in values):
        return Series([], [], colour, **look)
    drawn = [math.nan if value is None else value for value in values]
    return Series([progress(event) for event in events], drawn, colour, **look)


def _marks(run: Run, colour: str) -> list[ChartMark]:
    kinds = {"checkpoint": run.history.checkpoints, "resume": run.history.resumes}
    return [
        ChartMark(kind, run.epochs_trained(event), colour)
        for kind, events in kinds.items()
        for event in events[:: len(events) // MAX_MARKS + 1]
    ]


def _colours(number: int, num_runs: int) -> tuple[str, str]:
    """Colours of training and validation: two for a run on its own, one for a run beside others."""
    return (run_colour(0), run_colour(1)) if num_runs == 1 else (run_colour(number), run_colour(number))


def _legend(runs: Sequence[Run], names: Sequence[str]) -> str:
    training, validation = _colours(0, 1) if len(runs) == 1 else ("var(--ink)", "var(--ink)")
    keys = [f"{run_dot(number)}{escape(name)}" for number, name in enumerate(names)] if len(runs) > 1 else []
    keys += [
        f'<i class="line dashed" style="color:{training}"></i>training, mean of the epoch',
        f'<i class="line faint" style="color:{training}"></i>training, by step',
        f'<i class="line" style="color:{validation}"></i>validation',
    ]
    if any(run.best_epoch for run in runs):
        keys.append(f'<i class="ring" style="color:{validation}"></i>best epoch')
    if any(run.history.checkpoints for run in runs):
        keys.append(f'<i class="tick" style="color:{training}"></i>checkpoint')
    if any(run.history.resumes for run in runs):
        keys.append(f'<i class="line dotted" style="color:{training}"></i>resumed')
    return '<div class="card legend">' + "".join(f"<span>{key}</span>" for key in keys) + "</div>"
