"""A thread rests after its work, and does not once somebody waits."""

from __future__ import annotations

import threading
import time

import pytest

from distrain.training.checkpoints.pace import Pace


def work(seconds):
    """Use processor time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@pytest.mark.parametrize(("share", "rests"), [(1, 0), (0.5, 1), (0.1, 9)])
def test_a_rest_follows_from_the_processor_time_that_was_used(monkeypatch, share, rests):
    asked = []
    monkeypatch.setattr(threading.Event, "wait", lambda self, seconds: asked.append(seconds))
    pace = Pace(share)
    work(0.01)  # before `begin`, which is no work of the thread
    pace.begin()
    pace.rest()
    assert asked == [], "nothing was done"
    for _ in range(2):
        before = time.thread_time()
        work(0.01)
        pace.rest()
        used = time.thread_time() - before
        assert asked.pop() == pytest.approx(rests * used, rel=0.3)
        assert asked == []


def test_who_waits_ends_the_rest():
    pace, resting = Pace(1e-6), threading.Event()

    def thread():
        pace.begin()
        for _ in range(2):
            work(0.002)
            resting.set()
            pace.rest()  # half an hour

    started = threading.Thread(target=thread, daemon=True)
    started.start()
    assert resting.wait(20)
    started.join(0.1)
    assert started.is_alive()
    pace.hurry()
    started.join(20)
    assert not started.is_alive()
    pace.calm()
    started = threading.Thread(target=thread, daemon=True)
    started.start()
    started.join(0.2)
    assert started.is_alive()
    pace.hurry()
    started.join(20)
