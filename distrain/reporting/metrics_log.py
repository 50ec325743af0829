"""The run's log, `metrics.jsonl`: one JSON object a line, appended and flushed as things happen.

Decides: how an event is written. Never: which events there are, when they happen, or how they are read.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
    >>> with MetricsLog(path) as log:
    ...     log.write("epoch", step=10, epoch=1, time=0.0, values={"loss": 0.5})
    >>> print(path.read_text(), end="")
    {"event": "epoch", "step": 10, "epoch": 1, "time": 0.0, "loss": 0.5}

Each event is `{"event": .., "step": .., "epoch": .., "time": .., NAME: VALUE, ...}` with `event` from `EVENTS`. The
field `step` counts the steps trained so far, `epoch` counts from 1, and `time` is in seconds since 1970.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from types import TracebackType
from typing import Any

EVENTS = ("step", "epoch", "evaluate", "checkpoint", "resume", "stop")
LEARNING_RATE = "learning_rate"  # the name of the rate among the values of an event
MAX_LINE_BYTES = 1 << 16  # an event has some hundred bytes; a longer line is damage and is not read into memory


def json_scalar(value: Any) -> Any:
    """Return `value` as strict JSON can hold it: scalars of NumPy or tensors as numbers, NaN and infinities as None.

    A list, the figure of a metric that gives a number per class, becomes a list of such values; a dict likewise.
    """
    if isinstance(value, dict):
        return {name: json_scalar(item) for name, item in value.items()}
    if isinstance(value, list):
        return [json_scalar(item) for item in value]
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Integral):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None


class MetricsLog:
    """The log file, open for appending.

    If a killed process left an unfinished line, that line is cut off first. The next event then begins its own line.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")
        end = _end_of_last_line(self._file)
        if end < self._file.seek(0, os.SEEK_END):
            self._file.truncate(end)

    def write(
        self, event: str, *, step: int, epoch: int, time: float, values: Mapping[str, object] | None = None
    ) -> None:
        """Append one event and flush the file.

        Args:
            event: One of `EVENTS`.
            step: Steps trained so far.
            epoch: The epoch, from 1.
            time: Seconds since 1970.
            values: Numbers, texts or None by name. A name that every event has, such as "step", is left out.
        """
        record: dict[str, object] = {"event": event, "step": step, "epoch": epoch, "time": time}
        record |= {name: value for name, value in (values or {}).items() if name not in record}
        line = json.dumps({name: json_scalar(value) for name, value in record.items()}, allow_nan=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _end_of_last_line(file: Any) -> int:
    """Return the offset behind the last newline, searched from the end in blocks."""
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - MAX_LINE_BYTES)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0
