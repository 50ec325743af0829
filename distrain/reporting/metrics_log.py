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
from collections import deque
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from types import TracebackType
from typing import Any

from distrain.files import describe, sync
from distrain.reporting.write_warning import WriteWarning

EVENTS = ("step", "epoch", "evaluate", "checkpoint", "resume", "skip", "stop")
LEARNING_RATE = "learning_rate"  # the name of the rate among the values of an event
MAX_LINE_BYTES = 1 << 16  # an event has some hundred bytes; a longer line is damage and is not read into memory
MAX_PENDING_LINES = 10_000  # some megabytes of events wait while the disk is full; older events are dropped


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
    A failed write is a warning; the next write tries again, with the events so far.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._end = 0  # behind the last whole line
        self._is_torn = False  # whether the file may hold more than whole lines
        self._pending: deque[bytes] = deque(maxlen=MAX_PENDING_LINES)
        self._warn = WriteWarning(str(path))
        self._write_pending()

    def write(
        self, event: str, *, step: int, epoch: int, time: float, values: Mapping[str, object] | None = None
    ) -> None:
        """Append one event and hand it to the system.

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
        self._pending.append(line.encode() + b"\n")
        self._write_pending()

    def sync(self) -> None:
        """Bring all events to the disk, so that they survive a power cut; events of failed writes get another try."""
        if self._pending:
            self._write_pending()
        if self._descriptor is not None:
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                self._warn(describe(error))

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write_pending(self) -> None:
        try:
            if self._descriptor is None:
                self._descriptor = _open(self._path)
                self._end, self._is_torn = _end_of_last_line(self._descriptor), True
            if self._is_torn:
                os.ftruncate(self._descriptor, self._end)
            self._is_torn = True
            rest = content = b"".join(self._pending)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            self._warn(describe(error))
            return
        self._is_torn = False
        self._end += len(content)
        self._pending.clear()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _open(path: Path) -> int:
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    if is_new:
        sync(path.parent)
    return descriptor


def _end_of_last_line(descriptor: int) -> int:
    """Return the offset behind the last newline, searched from the end in blocks."""
    position = os.fstat(descriptor).st_size
    while position > 0:
        start = max(0, position - MAX_LINE_BYTES)
        newline = os.pread(descriptor, position - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0
