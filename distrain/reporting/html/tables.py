"""The tables of `report.html`: runs compared, settings that differ, epochs, key values.

Decides: which rows and columns a table has, and how a number reads. Never: how a table looks.

    table = comparison(runs)
    table.heads, table.rows[0][0].text
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from distrain.reporting.metrics_log import LEARNING_RATE
from distrain.reporting.run_history import Run

MAX_TABLE_ROWS = 200
MAX_TABLE_METRICS = 16
MAX_CELL_VALUES = 4  # of a figure that has several values
MAX_TEXT = 300  # characters of a setting's value
MISSING = "\N{EN DASH}"

# Names in an event that are no metrics of the model.
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
    LEARNING_RATE,
}


class Cell(NamedTuple):
    """Text of a table cell; `is_best` emphasizes it."""

    text: str
    is_best: bool = False


class Table(NamedTuple):
    """Column titles, and rows of as many cells."""

    heads: list[str]
    rows: list[list[Cell]]


class KeyValue(NamedTuple):
    """A number of a run in large type, with its label below and a hint in small type."""

    label: str
    value: str
    hint: str


def duration(seconds: float) -> str:
    """Return seconds as 8.3 s, 4 min 05 s, or 2 h 07 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
    return f"{seconds // 3600:,.0f} h {seconds % 3600 // 60:02.0f} min"


def as_number(value: Any) -> float | None:
    """Return `value` as a float if it is a number and no bool, else None."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def numbers_in(value: Any) -> list[float | None]:
    """Return the values of a figure, which is a number or a list, such as a precision per class."""
    return [as_number(each) for each in (value if isinstance(value, list) else [value])]


def as_text(value: object) -> str:
    """Return a setting or result as text, cut to `MAX_TEXT` characters."""
    text = MISSING if value is None else str(value)
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + " …"


_COLUMNS: list[tuple[str, str, Callable[[float], str], Callable[[Iterable[float]], float] | None]] = [
    ("validation accuracy", "validation_accuracy", "{:.4f}".format, max),
    ("validation loss", "validation_loss", "{:.4f}".format, min),
    ("epochs", "epochs", "{:,.0f}".format, None),
    ("samples/s", "samples_per_second", "{:,.0f}".format, max),
    ("training time", "train_seconds", duration, min),
    ("replicas", "num_replicas", "{:,.0f}".format, None),
]


def comparison(runs: Sequence[Run]) -> Table:
    """Return a row for each run; the best value of a column is emphasized if the runs differ in it."""
    columns = []
    for _, name, text, choose in _COLUMNS:
        values = [run.result(name) for run in runs]
        known = [value for value in values if value is not None]
        best = choose(known) if choose and len(set(known)) > 1 else None
        columns.append([Cell(MISSING) if value is None else Cell(text(value), value == best) for value in values])
    return Table([label for label, *_ in _COLUMNS], [list(row) for row in zip(*columns, strict=True)])


def differing_settings(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return the values of each setting in which the runs differ, except for their own directory."""
    names = dict.fromkeys(name for run in runs for name in run.settings if name != "run")
    values = {name: [as_text(run.settings.get(name, MISSING)) for run in runs] for name in names}
    return {name: texts for name, texts in values.items() if len(set(texts)) > 1}


def epoch_table(run: Run) -> Table:
    """Return a row for each of the last epochs; the best epoch's number is emphasized."""
    events = run.history.epochs[-MAX_TABLE_ROWS:]
    names = [name for name in events[-1] if name not in NOT_METRICS][:MAX_TABLE_METRICS] if events else []
    formats = dict.fromkeys(names, "{:.4f}")
    rate = {LEARNING_RATE: "{:.3g}"} if any(LEARNING_RATE in event for event in events) else {}
    formats |= {**rate, "samples_per_second": "{:,.0f}", "seconds": "{:,.2f}"}
    rows = []
    for event in events:
        cells = [Cell(_figure(event.get(name), style)) for name, style in formats.items()]
        rows.append([Cell(f"{event['epoch']:,}", event is run.best_epoch), *cells])
    return Table(["epoch", *map(as_text, names), *["learning rate"][: len(rate)], "samples/s", "seconds"], rows)


def _figure(value: Any, style: str) -> str:
    texts = [MISSING if number is None else style.format(number) for number in numbers_in(value)]
    return " ".join([*texts[:MAX_CELL_VALUES], *["…"][: len(texts) - MAX_CELL_VALUES]])


def class_table(run: Run) -> Table:
    """Return a row for each class of the validation data; of many classes those with the lowest F1."""
    found = run.summary.get("classes")
    classes = found if isinstance(found, dict) else {}
    formats = {"precision": "{:.4f}", "recall": "{:.4f}", "f1": "{:.4f}", "support": "{:,.0f}"}
    rows = []
    for name, figures in classes.items():
        known = figures if isinstance(figures, dict) else {}
        numbers = {key: as_number(known.get(key)) for key in formats}
        cells = [Cell(MISSING if number is None else formats[key].format(number)) for key, number in numbers.items()]
        rows.append((numbers["f1"] or 0.0, [Cell(as_text(name)), *cells]))
    if len(rows) > MAX_TABLE_ROWS:
        rows = sorted(rows, key=lambda row: row[0])[:MAX_TABLE_ROWS]
    return Table(["class", "precision", "recall", "F1", "examples"], [cells for _, cells in rows])


def result_values(run: Run) -> dict[str, Any]:
    """Return the results of a run that are single values."""
    return {name: value for name, value in run.summary.items() if not isinstance(value, dict)}


def key_values(run: Run) -> Iterator[KeyValue]:
    """Yield the numbers of a run that a reader looks for first, as far as they are known."""
    best = run.best_epoch
    accuracy, loss = run.result("validation_accuracy"), run.result("validation_loss")
    best_epoch = f"best epoch {best['epoch']}" if best else ""
    if accuracy is not None:
        yield KeyValue("validation accuracy", f"{accuracy:.4f}", best_epoch)
    if loss is not None:
        yield KeyValue("validation loss", f"{loss:.4f}", best_epoch)
    epochs, steps = run.result("epochs"), run.result("global_steps")
    if epochs is not None:
        yield KeyValue("epochs", f"{epochs:,.0f}", f"{steps:,.0f} steps" if steps is not None else "")
    rate, examples = run.result("samples_per_second"), run.result("examples_trained")
    if rate is not None:
        yield KeyValue("samples per second", f"{rate:,.0f}", f"{examples:,.0f} in all" if examples is not None else "")
    seconds = run.result("train_seconds")
    if seconds is not None:
        yield KeyValue("training time", duration(seconds), "without evaluation")
    replicas = run.result("num_replicas")
    if replicas is not None:
        strategy = str(run.summary.get("strategy") or run.settings.get("strategy") or "")
        yield KeyValue("replicas", f"{replicas:,.0f}", strategy)
