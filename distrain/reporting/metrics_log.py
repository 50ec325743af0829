"""The run's log, `metrics.jsonl`: one JSON object a line, appended and flushed as things happen.

Decides: how an event is written, and what a log means once a run was killed and went on from a checkpoint.
Never: which events there are, when they happen, or how they are drawn.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
    >>> with MetricsLog(path) as log:
    ...     log.write("epoch", step=10, epoch=1, time=0.0, values={"loss": 0.5})
    >>> read_history(path).epochs[0]["loss"]
    0.5

An event is `{"event": .., "step": .., "epoch": .., "time": .., <name>: <value>, ...}`: `event` one of
`EVENTS`, `step` the steps trained so far, `epoch` counted from 1, `time` in seconds since 1970. In one run
steps never go back, so an event at step s says that whatever the log holds beyond s was lost and is trained
again: readers drop it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from types import TracebackType
from typing import Any

EVENTS = ("step", "epoch", "evaluate", "checkpoint", "resume", "stop")

MAX_LINE_BYTES = 1 << 16  # an event is some hundred bytes; a longer line is damage and is not read into memory
MAX_STEP = 1 << 53  # beyond it a float, and so an axis, no longer tells steps apart
MAX_VALUE = 1e100  # beyond it sums of squares overflow in whoever draws the value

Event = dict[str, Any]


def plain(value: Any) -> Any:
    """`value` as strict JSON can hold it: NumPy and tensor scalars as numbers, NaN and infinities as None."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Integral):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None


class MetricsLog:
    """The log file, open for appending.

    A line that a killed process left unfinished is cut off first, so that the next event does not run
    into it.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")
        end = _end_of_last_line(self._file)
        if end < self._file.seek(0, os.SEEK_END):
            self._file.truncate(end)

    def write(
        self, event: str, *, step: int, epoch: int, time: float, values: Mapping[str, object] | None = None
    ) -> None:
        """Append one event and flush it.

        Args:
            event: one of `EVENTS`.
            step: steps trained so far.
            epoch: the epoch, from 1.
            time: seconds since 1970.
            values: numbers, texts or None by name; a name that an event has anyway is left out.
        """
        record: dict[str, object] = {"event": event, "step": step, "epoch": epoch, "time": time}
        record |= {name: value for name, value in (values or {}).items() if name not in record}
        line = json.dumps({name: plain(value) for name, value in record.items()}, allow_nan=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; harmless when it is closed already."""
        self._file.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _end_of_last_line(file: Any) -> int:
    """Offset just behind the last newline, found from the end in blocks."""
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - MAX_LINE_BYTES)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


class Thinned:
    """Events in order of their steps, at most `capacity` of them, spread evenly over all that were added.

    When it is full every second event goes and from then on only every second, fourth, ... one is taken.
    """

    def __init__(self, capacity: int) -> None:
        self.events: list[Event] = []
        self._capacity = capacity
        self._stride = 1
        self._skipped = 0

    def add(self, event: Event) -> None:
        """Take the event in, or pass over it when its turn has not come."""
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
        """Forget the events behind `step`."""
        while self.events and self.events[-1]["step"] > step:
            self.events.pop()


@dataclass(frozen=True)
class History:
    """What a run went through, in order of steps, without what was lost and trained again.

    Attributes:
        steps: training steps, thinned to some thousand.
        epochs: finished epochs.
        evaluations: evaluations, those at the end of an epoch included.
        checkpoints: checkpoints written.
        resumes: where the run went on from a checkpoint.
        stops: how the run ended; the last one counts.
        damaged_lines: lines that are no event and were passed over.
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

    The last line may be cut (the run was killed, or is writing it just now); any other line that is no
    event is passed over and counted. A log that does not exist is an empty history.

    Raises:
        OSError: the file exists but cannot be read.
    """
    kinds = {event: Thinned(capacity) for event in EVENTS}
    damaged = 0
    for event in _read_events(path):
        if event is None:
            damaged += 1
            continue
        for kind in kinds.values():
            kind.drop_beyond(event["step"])
        kept = kinds[event["event"]]
        if event["event"] != "step" and kept.events and kept.events[-1]["step"] == event["step"]:
            kept.events[-1] = event  # said again after a resume at this very step
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
    """The events of a log; None for each line that is not one."""
    if not path.exists():
        return
    with path.open("rb") as file:
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
    """One line as an event with values that can be drawn, or None."""
    try:
        event = json.loads(line, parse_constant=lambda _: None)
    except (ValueError, RecursionError):  # the latter from brackets nested thousands deep
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
    if isinstance(value, (int, float)):
        return abs(value) <= MAX_VALUE  # false for infinities, which 1e999 is read as
    return value is None or isinstance(value, str)
