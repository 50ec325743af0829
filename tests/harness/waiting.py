"""Waiting in tests: a bounded wait for a positive sign, instead of a sleep.

wait_until((folder / "ready").exists)
wait_until(lambda: job.steps() > 6, 120, job.err)      # shows `job.err()` when the time is up
"""

from __future__ import annotations

import time
from collections.abc import Callable

BOUND = 60.0  # seconds; much longer than any event takes on a busy machine


def wait_until(condition: Callable[[], object], seconds: float = BOUND, what: Callable[[], str] = str) -> None:
    """Return when `condition()` is true, and fail after `seconds`.

    Args:
        condition: Called every 20 ms; less often if it takes long, so that waiting leaves the processor to others.
        seconds: Time limit.
        what: Describes the state for the failure.
    """
    began = time.monotonic()
    end = began + seconds
    while not condition():
        now = time.monotonic()
        assert now < end, what()
        time.sleep(min(max(0.02, 4 * (now - began)), 0.5))
        began = time.monotonic()
