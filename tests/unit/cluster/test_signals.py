"""Signals that ask a process to stop."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from distrain.cluster.signals import STOP_SIGNALS, StopRequest, stop_requests


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signals_become_requests_inside_the_context(number):
    before = [signal.getsignal(each) for each in STOP_SIGNALS]
    with stop_requests() as stop:
        assert stop.signal_name is None
        os.kill(os.getpid(), number)
        assert stop.signal_name == signal.Signals(number).name
        if number == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        else:
            os.kill(os.getpid(), number)  # a scheduler may repeat its signal
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == before


def test_other_threads_keep_the_handlers():
    before = [signal.getsignal(each) for each in STOP_SIGNALS]
    inside = []

    def work():
        with stop_requests() as stop:
            inside.append(([signal.getsignal(each) for each in STOP_SIGNALS], stop.signal_name))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [(before, None)]


def test_a_request_is_empty_before_the_first_signal():
    assert StopRequest().signal_name is None
