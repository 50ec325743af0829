"""Reads a shuffle window by data workers, ahead of its use and in order.

Decides: how a window is cut into tasks, and how far ahead workers read. Never: what an example holds.

    rows = read_by_workers(shared, numbers, spans, indices, epoch=0)
    features, labels, weights = rows(0, 32)

A source that is read in any order has a few small tasks in the queue. A source that is fast by ranges alone has a task
for each range of neighbours. The examples of its window lie in memory, as without workers.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future

import numpy as np

from distrain.data.examples import RowNests, RowReader
from distrain.data.nests import leaves
from distrain.data.workers.messages import empty_rows
from distrain.data.workers.pool import SharedReader

AHEAD = 4  # tasks of each worker that are queued, under work, or done and not yet used

_WINDOWS = itertools.count()  # of all sources: an earlier window is read first


def read_by_workers(
    shared: SharedReader, numbers: np.ndarray, spans: np.ndarray, indices: np.ndarray, epoch: int
) -> RowReader:
    """Start to read some examples of a shuffle window.

    Args:
        shared: reader of the source.
        numbers: number of each example, int64 `[k]`.
        spans: (start, stop) of each span of the window, int64 `[s, 2]`.
        indices: indices of the examples into the concatenated spans, int64 `[k]`.
        epoch: epoch from 0.

    Returns:
        A reader of the examples start .. stop - 1 of 0 .. k - 1; reading on from the last call is fast.
    """
    if shared.reader.reads_ranges_alone:
        return _Ranges(shared, len(numbers), shared.reader.span_shares(spans, indices), epoch)
    return _Chunks(shared, numbers, epoch)


class _Chunks:
    """Reads examples in their order, a bounded number of tasks ahead."""

    def __init__(self, shared: SharedReader, numbers: np.ndarray, epoch: int) -> None:
        self._shared, self._numbers, self._epoch = shared, numbers, epoch
        self._window = next(_WINDOWS)
        self._tasks: deque[tuple[int, Future[RowNests]]] = deque()  # with the number of examples
        self._submitted = self._read = 0
        self._rows: RowNests | None = None  # of the task that is used at present
        self._rows_left = 0
        self._top_up()

    def __call__(self, start: int, stop: int) -> RowNests:
        if start != self._read:
            return self._task(start, stop).result()
        if self._rows is None and self._tasks and self._tasks[0][0] == stop - start:
            self._read = stop
            return self._next()
        out = empty_rows(self._shared.layout, stop - start)
        done = 0
        while done < stop - start:
            if self._rows is None:
                self._rows_left = self._tasks[0][0]
                self._rows = self._next()
            count = min(self._rows_left, stop - start - done)
            for target, source in _pairs(out, self._rows):
                first = len(source) - self._rows_left
                target[done : done + count] = source[first : first + count]
            done, self._rows_left = done + count, self._rows_left - count
            if not self._rows_left:
                self._rows = None
        self._read = stop
        return out

    def _next(self) -> RowNests:
        rows = self._tasks.popleft()[1].result()
        self._top_up()
        return rows

    def _top_up(self) -> None:
        while len(self._tasks) < AHEAD * self._shared.pool.size and self._submitted < len(self._numbers):
            stop = min(self._submitted + self._shared.chunk, len(self._numbers))
            self._tasks.append((stop - self._submitted, self._task(self._submitted, stop)))
            self._submitted = stop

    def _task(self, start: int, stop: int) -> Future[RowNests]:
        numbers, reader = self._numbers[start:stop], self._shared.reader
        found = reader.fetch(numbers) if reader.has_elements else None
        return self._shared.submit(numbers, epoch=self._epoch, priority=(self._window, start), found=found)

    def __del__(self) -> None:
        for _, task in self._tasks:
            task.cancel()


class _Ranges:
    """Reads all ranges of a window; the first call waits for the last range."""

    def __init__(
        self, shared: SharedReader, count: int, shares: list[tuple[np.ndarray, np.ndarray]], epoch: int
    ) -> None:
        self._shared, self._count = shared, count
        window = next(_WINDOWS)
        self._tasks = [
            (rows, shared.submit(numbers, epoch=epoch, priority=(window, index)))
            for index, (numbers, rows) in enumerate(shares)
        ]
        self._held: RowNests | None = None

    def __call__(self, start: int, stop: int) -> RowNests:
        if self._held is None:
            self._held = empty_rows(self._shared.layout, self._count)
            while self._tasks:
                rows, task = self._tasks.pop()
                for target, source in _pairs(self._held, task.result()):
                    target[rows] = source
        out = empty_rows(self._shared.layout, stop - start)
        for target, source in _pairs(out, self._held):
            target[...] = source[start:stop]
        return out

    def __del__(self) -> None:
        for _, task in self._tasks:
            task.cancel()


def _pairs(first: RowNests, second: RowNests) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the arrays of one structure side by side."""
    for one, other in zip(first, second, strict=True):
        for (_, own), (_, its) in zip(leaves(one), leaves(other), strict=True):
            yield own, its
