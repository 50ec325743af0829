"""A rank that leaves a job has a deadline, because other ranks or a launcher may hang."""

from __future__ import annotations

import threading
import types

from distrain.distribution import choose


def test_a_process_that_waits_for_others_at_its_end_leaves_in_time(monkeypatch):
    """So a rank waits in Horovod's shutdown beside a launcher that hangs."""
    left: list[int] = []
    is_left = threading.Event()
    monkeypatch.setattr(choose, "LEAVE_SECONDS", 0.1)
    monkeypatch.setattr(choose, "exit_process", lambda code, message: (left.append(code), is_left.set()))
    hung = types.SimpleNamespace(stop=lambda: is_left.wait(10))
    monkeypatch.setattr(choose, "_joined", [hung])
    choose.leave(5)
    assert left == [5]


def test_a_process_that_leaves_in_time_keeps_its_own_end(monkeypatch):
    monkeypatch.setattr(choose, "LEAVE_SECONDS", 600)
    monkeypatch.setattr(choose, "_joined", [types.SimpleNamespace(stop=lambda: None)])
    before = set(threading.enumerate())
    choose.leave(0)
    for thread in set(threading.enumerate()) - before:  # the deadline is cancelled
        thread.join(10)
        assert not thread.is_alive()
    assert choose._joined == []
