"""A run directory, read for its report: settings, result and history.

Decides: what counts as a run directory, and which epoch was the best. Never: draws, or changes a run.

    run = load_run(Path("runs/a"))
    run.result("validation_accuracy")
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distrain.errors import CheckpointError
from distrain.file_names import CONFIG_NAME, METRICS_NAME, SUMMARY_NAME
from distrain.files import read_json_object
from distrain.reporting.history import MAX_VALUE, Event, History, read_history

MAX_JSON_BYTES = 1 << 18  # settings and results are some kilobytes; a larger file is damaged


@dataclass(frozen=True)
class Run:
    """A run as its directory describes it.

    Attributes:
        folder: The run directory.
        settings: Content of `config.json`; empty if the file is absent.
        summary: Content of `summary.json`; empty while the run is not finished.
        history: Events of `metrics.jsonl`.
    """

    folder: Path
    settings: dict[str, Any]
    summary: dict[str, Any]
    history: History

    @cached_property
    def best_epoch(self) -> Event | None:
        """The best epoch by the figure that the run monitored.

        A log without that finding gives the epoch with the lowest validation loss; of equal epochs the first.
        """
        if found := [event for event in self.history.epochs if event.get("best")]:
            return found[-1]
        losses = [(event.get("val_loss"), event) for event in self.history.epochs]
        known = [(loss, event) for loss, event in losses if isinstance(loss, (int, float))]
        return min(known, key=lambda pair: pair[0])[1] if known else None

    def result(self, name: str) -> float | None:
        """Return a number of `summary.json`; for an unfinished run, the number so far from its history."""
        value = self.summary.get(name) if self.summary else self._result_so_far(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        return float(value) if abs(value) <= MAX_VALUE else None  # false for NaN too

    def _result_so_far(self, name: str) -> Any:
        epochs, best = self.history.epochs, self.best_epoch or {}
        if name == "num_replicas":
            return self.settings.get(name)
        if not epochs:
            return None
        known = {
            "validation_accuracy": best.get("val_accuracy"),
            "validation_loss": best.get("val_loss"),
            "epochs": epochs[-1]["epoch"],
            "global_steps": epochs[-1]["step"],
            "samples_per_second": epochs[-1].get("samples_per_second"),
        }
        return known.get(name)

    @cached_property
    def _steps_per_epoch(self) -> float:
        """Steps of an epoch from the last step's event, else from a finished epoch; 0 if neither is known."""
        logged = [event.get("steps_per_epoch") for event in self.history.steps[-1:]]
        if logged and isinstance(logged[0], (int, float)) and logged[0] > 0:
            return logged[0]
        last = self.history.epochs[-1:]
        return last[0]["step"] / last[0]["epoch"] if last and last[0]["epoch"] > 0 else 0

    def epochs_trained(self, event: Event) -> float:
        """Return the epochs trained at an event, with the fraction of the current epoch."""
        return event["step"] / self._steps_per_epoch if self._steps_per_epoch else event["epoch"]

    @cached_property
    def time_span(self) -> tuple[float | None, float | None]:
        """Times of the first and the last event, in seconds since 1970."""
        history = self.history
        kinds = (history.steps, history.epochs, history.evaluations, history.checkpoints, history.stops)
        times = [event["time"] for events in kinds for event in events if isinstance(event.get("time"), (int, float))]
        return (min(times), max(times)) if times else (None, None)


def load_run(folder: Path, *, capacity: int = 2000) -> Run:
    """Read a run directory, holding at most `capacity` events of a kind.

    Raises:
        CheckpointError: the folder is missing or is no run directory, or one of its files is damaged.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not there; name the folder that was given to distrain train as --run.")
    config, log = folder / CONFIG_NAME, folder / METRICS_NAME
    if not config.exists() and not log.exists():
        raise CheckpointError(
            f"{folder} is not a run directory: it has neither config.json nor metrics.jsonl; "
            "name the folder that was given to distrain train as --run."
        )
    try:
        history = read_history(log, capacity=capacity)
    except OSError as error:
        raise CheckpointError(f"{log} cannot be read ({error.strerror}); mend it or leave this run out.") from error
    return Run(folder, _read_json(config), _read_json(folder / SUMMARY_NAME), history)


def _read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; an absent file gives an empty object."""
    try:
        return read_json_object(path, max_bytes=MAX_JSON_BYTES)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{path} is damaged ({reason}); restore it or leave this run out.") from error
