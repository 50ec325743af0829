"""Signals that ask this process to stop.

Decides: which signals are requests to stop, and when this process handles or ignores them. Never: stops anything.

    >>> import os, signal
    >>> from distrain.cluster.signals import stop_requests
    >>> with stop_requests() as stop:
    ...     os.kill(os.getpid(), signal.SIGUSR1)
    ...     stop.signal_name
    'SIGUSR1'
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

# Open MPI's mpirun relays SIGUSR1 to its ranks, but turns SIGTERM and SIGINT into a quick end. Cluster schedulers send
# SIGUSR1 as a warning. A terminal that closes sends SIGHUP.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


@dataclass
class StopRequest:
    """Whether this process received a request to stop.

    Attributes:
        signal_name: name of the last such signal, as in "SIGTERM"; None before the first.
    """

    signal_name: str | None = None


def listen_for_stop() -> StopRequest:
    """Handle `STOP_SIGNALS` as requests to stop until the process ends; return the request that a signal fills in.

    A second SIGINT raises `KeyboardInterrupt` at once. SIGHUP stays ignored under `nohup`. Python allows handlers in
    the main thread only; in any other thread the signals keep their meaning.
    """
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if request.signal_name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal_name = signal.Signals(number).name

    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, handle)
    return request


def ignore_stop() -> None:
    """Ignore `STOP_SIGNALS` until the process ends, because a launcher may repeat them meanwhile.

    Python restores the default action of handled signals before the process ends, but leaves ignored signals ignored.
    """
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Handle `STOP_SIGNALS` as `listen_for_stop` does, inside the context only."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield listen_for_stop()
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)
