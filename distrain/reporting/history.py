"""The history of a run, read from `metrics.jsonl`.

Decides: which events of a log count after a run was killed and resumed from a checkpoint. Never: writes or draws.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
    >>> _ = path.write_text('{"event": "epoch", "step": 10, "epoch": 1, "loss": 0.5}')
    >>> read_history(path).epochs[0]["loss"]
    0.5

The steps of one run never go back. If an event at step s follows events beyond s, those events were lost and are
trained again, so readers drop them. A checkpoint alone may come after events of later steps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distrain.regular_file import open_regular
from distrain.reporting.metrics_log import EVENTS, MAX_LINE_BYTES

MAX_STEP = 1 << 53  # a float, and so an axis, cannot count beyond it
MAX_VALUE = 1e100  # the square of a larger value overflows when a chart is drawn

Event = dict[str, Any]


class ThinnedEvents:
    """Events in order of their steps, at most `capacity` of them, spread evenly over all that were added.

    When the list is full, it drops every second event. From then on it accepts every second, fourth, ... event.
    """

    def __init__(self, capacity: int) -> None:
        self.events: list[Event] = []
        self._capacity = capacity
        self._stride = 1
        self._skipped = 0

    def add(self, event: Event) -> None:
        """Accept or skip the next event."""
        if self.events and self._skipped + 1 < self._stride:
            self._skipped += 1
            return
        self._skipped = 0
        self.events.append(event)
        if len(self.events) >= self._capacity:
            del self.events[1::2]
            if self.events[-1] is not event:
                self._skipped = self._stride
            self._stride *= 2

    def drop_beyond(self, step: int) -> None:
        """Drop the events after `step`."""
        while self.events and self.events[-1]["step"] > step:
            self.events.pop()


@dataclass(frozen=True)
class History:
    """Events of a run in order of steps, without those that were lost and trained again.

    Attributes:
        steps: Training steps, thinned to the capacity that the reader chose.
        epochs: Finished epochs.
        evaluations: Evaluations, with or without the end of an epoch.
        checkpoints: Written checkpoints.
        resumes: Points at which the run resumed from a checkpoint.
        stops: Ends of the run; the last counts.
        damaged_lines: Number of skipped lines that hold no event.
    """

    steps: list[Event]
    epochs: list[Event]
    evaluations: list[Event]
    checkpoints: list[Event]
    resumes: list[Event]
    stops: list[Event]
    damaged_lines: int


def read_history(path: Path, *, capacity: int = 2000) -> History:
    """Read a log in one pass, holding at most `capacity` events of a kind.

    The last line may be unfinished, because the run was killed or is writing it. Any other line without an event is
    skipped and counted. A log that does not exist gives an empty history.

    Raises:
        OSError: the file exists but cannot be read.
    """
    kinds = {event: ThinnedEvents(capacity) for event in EVENTS}
    damaged = 0
    for event in _read_events(path):
        if event is None:
            damaged += 1
            continue
        if event["event"] != "checkpoint":  # a thread writes checkpoints, so later steps may come first
            for kind in kinds.values():
                kind.drop_beyond(event["step"])
        kept = kinds[event["event"]]
        if event["event"] != "step" and kept.events and kept.events[-1]["step"] == event["step"]:
            kept.events[-1] = event  # a run that resumes at this step repeats the event
        else:
            kept.add(event)
    return History(
        steps=kinds["step"].events,
        epochs=kinds["epoch"].events,
        evaluations=kinds["evaluate"].events,
        checkpoints=kinds["checkpoint"].events,
        resumes=kinds["resume"].events,
        stops=kinds["stop"].events,
        damaged_lines=damaged,
    )


def _read_events(path: Path) -> Iterator[Event | None]:
    """Yield the events of a log; None for each damaged line."""
    if not path.exists():
        return
    with open_regular(path) as file:
        while line := file.readline(MAX_LINE_BYTES):
            complete = line.endswith(b"\n")
            if not complete and len(line) == MAX_LINE_BYTES:
                while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                yield None
                continue
            event = _parse(line)
            if event is not None or complete:
                yield event


def _parse(line: bytes) -> Event | None:
    """Return one line as an event whose values can be drawn, or None."""
    try:
        event = json.loads(line, parse_constant=lambda _: None)
    except (ValueError, RecursionError):  # RecursionError: brackets nested thousands deep
        return None
    if not isinstance(event, dict) or event.get("event") not in EVENTS:
        return None
    step, epoch = event.get("step"), event.get("epoch")
    if not (_is_count(step) and _is_count(epoch)):
        return None
    return {name: value for name, value in event.items() if _is_drawable(value)}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_STEP


def _is_drawable(value: object) -> bool:
    if isinstance(value, list):  # a figure of several values
        return all(each is None or (isinstance(each, (int, float)) and _is_drawable(each)) for each in value)
    if isinstance(value, (int, float)):
        return abs(value) <= MAX_VALUE  # false for infinities, which JSON readers make of 1e999
    return value is None or isinstance(value, str)
