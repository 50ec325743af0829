"""Signals that ask a process to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
import types

import pytest

import distrain.__main__
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


def test_an_ignored_hangup_stays_ignored():
    """`nohup` starts a command that way."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signal_name is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_command_listens_before_it_imports_the_command_line(monkeypatch):
    """The import of the command line takes longest, so a fake one receives the signal in its place."""
    command_line = types.ModuleType("distrain.cli.main")

    def main(*, stop: StopRequest, output: object) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 42 if stop.signal_name == "SIGTERM" else 1

    command_line.main = main
    monkeypatch.setitem(sys.modules, "distrain.cli.main", command_line)
    monkeypatch.setattr(sys, "argv", ["distrain", "train"])
    with stop_requests():  # restores the handlers of this process
        assert distrain.__main__.main() == 42


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
