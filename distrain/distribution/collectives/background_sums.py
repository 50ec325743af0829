"""Sums of host buffers in a thread, one after the other, while the caller computes.

Decides: in which order sums run. Never: sums by itself.

    sums = BackgroundSums()
    sums.start(host_all_reduce, collectives, gradients, [])
    (totals,) = sums.finish()

All ranks start the same sums in the same order, so one thread per rank keeps the ranks' collectives in step.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class BackgroundSums:
    """The sums of one step."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "distrain-sum")  # starts its thread with the first sum
        self._started: list[Future[Any]] = []

    def start(self, reduce: Callable[..., Any], *arguments: Any) -> None:
        """Call `reduce(*arguments)` in the thread, after the sums that were started before."""
        self._started.append(self._thread.submit(reduce, *arguments))

    def finish(self) -> list[Any]:
        """Wait for all sums, and return what they returned, in the order of their start."""
        started, self._started = self._started, []
        return [future.result() for future in started]
