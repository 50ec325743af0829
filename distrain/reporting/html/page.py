"""`report.html`: one run in pictures, or several runs for comparison. One file without network and script.

Decides: what the page shows of a run. Never: changes anything in a run directory but the page itself.

    write_report([Path("runs/a"), Path("runs/b")], Path("report.html"))

The template `page.html.jinja` escapes every text from a run directory, and the size of a text on the page is bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from distrain.errors import ConfigurationError
from distrain.files import atomic_write
from distrain.reporting.html.charts import charts, legend, run_colour
from distrain.reporting.html.tables import (
    as_text,
    class_table,
    comparison,
    differing_settings,
    epoch_table,
    key_values,
    result_values,
)
from distrain.reporting.run_history import Run, load_run

MAX_CHART_POINTS = 3000  # of all runs together in a chart: keeps a page with long runs below a megabyte


def write_report(run_dirs: Sequence[Path], out: Path) -> None:
    """Write the page.

    Args:
        run_dirs: Run directories, finished or not; the page says so of a run without metrics.
        out: File to create or replace.

    Raises:
        CheckpointError: one of `run_dirs` is missing, is no run directory, or is damaged.
        ConfigurationError: `run_dirs` is empty, or `out` cannot be written.
    """
    if not run_dirs:
        raise ConfigurationError("no run is named; name at least one run directory.")
    capacity = max(100, MAX_CHART_POINTS // len(run_dirs))
    runs = [load_run(Path(folder), capacity=capacity) for folder in run_dirs]
    try:
        with atomic_write(Path(out), durable=False) as tmp_path:
            tmp_path.write_text(render(runs), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{out}: cannot be written ({error.strerror}); name another file with --out."
        ) from error


def render(runs: Sequence[Run]) -> str:
    """Return the page as text; the same runs give the same text."""
    names = unique_names([run.folder for run in runs])
    environment = Environment(
        loader=PackageLoader("distrain.reporting.html", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"as_text": as_text, "run_colour": run_colour}
    style = files("distrain.reporting.html").joinpath("style.css").read_text(encoding="utf-8")
    return environment.get_template("page.html.jinja").render(
        title=names[0] if len(runs) == 1 else f"{len(runs)} runs side by side",
        style=Markup(style),
        state=_state(runs[0]) if len(runs) == 1 else "",
        names=names,
        runs=runs,
        key_values=list(key_values(runs[0])),
        comparison=comparison(runs),
        charts=charts(runs),
        legend=legend(runs),
        differing=differing_settings(runs),
        epochs=[epoch_table(run) for run in runs],
        classes=[class_table(run) for run in runs],
        results=[result_values(run) for run in runs],
    )


def unique_names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that differ from each other."""
    paths = [folder.resolve().parts[1:] or ("/",) for folder in folders]
    for length in range(1, max(map(len, paths)) + 1):
        names = ["/".join(path[-length:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            break
    return names


def _state(run: Run) -> str:
    """Return in one sentence when the run was trained and how it ended."""
    began, ended = run.time_span
    span = f"{_date(began)} to {_date(ended)} UTC" if began is not None and ended is not None else ""
    if run.history.stops:
        state = f"Ended: {run.history.stops[-1].get('reason')}"
    elif began is None:
        state = "No step has been logged yet"
    else:
        state = "Unfinished: still training, or killed"
    damaged = run.history.damaged_lines
    trouble = f"{damaged:,} damaged line{'s' * (damaged > 1)} of metrics.jsonl skipped" if damaged else ""
    return " · ".join(as_text(part) for part in (span, state, trouble) if part)


def _date(time: float) -> str:
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return "?"
