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
        condition: Called every 20 ms.
        seconds: Time limit.
        what: Describes the state for the failure.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.02)
