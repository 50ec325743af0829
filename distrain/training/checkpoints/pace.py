"""Keeps a thread to a small share of the processor while steps run.

Decides: how long a thread rests after a piece of work. Never: what the work is.

    >>> pace = Pace(share=0.5)
    >>> pace.begin()                 # in the thread, before its work
    >>> pace.rest()                  # in the thread, after each piece
    >>> pace.hurry()                 # in another thread, which waits for the work
    >>> pace.rest()                  # does not rest any more

A low priority alone does not protect a step: the thread fills each gap of the step, and takes memory bandwidth and
caches. The rest follows from the processor time that the thread has used, so a slow disk costs no rest.
"""

from __future__ import annotations

import threading
import time

MIN_WORK_SECONDS = 0.001  # after less, such as a small array, a rest is not worth its switch of threads


class Pace:
    """The pace of one thread, for one piece of work after the other.

    Args:
        share: processor time that the thread may use of each second.
    """

    def __init__(self, share: float) -> None:
        self._rest_per_second = max(0.0, 1 / share - 1)
        self._hurry = threading.Event()
        self._used = 0.0

    def begin(self) -> None:
        """Begin to count; the thread calls this."""
        self._used = time.thread_time()

    def rest(self) -> None:
        """Rest for the processor time since the last rest, unless somebody waits; the thread calls this."""
        used = time.thread_time()
        if used - self._used >= MIN_WORK_SECONDS:
            self._hurry.wait((used - self._used) * self._rest_per_second)
            self._used = used

    def calm(self) -> None:
        """Let the thread rest: nobody waits for its work."""
        self._hurry.clear()

    def hurry(self) -> None:
        """End the rest of the thread, and let it rest no more until `calm`."""
        self._hurry.set()
