"""Rates leave out the first step; the first step alone reports how long the start took."""

from __future__ import annotations

from step_events import step_event

from distrain.training.loop.throughput import StartupTime, Throughput


def test_throughput_leaves_out_the_startup():
    throughput = Throughput()
    throughput(step_event(seconds=100.0, examples=64))
    assert throughput.samples_per_second() is None
    throughput(step_event(seconds=0.5, examples=64))
    throughput(step_event(seconds=1.5, examples=36))
    assert throughput.samples_per_second() == 50.0


def test_startup_time_reports_the_first_step_alone():
    class Notes(list):
        note = list.append

    notes = Notes()
    startup = StartupTime(notes, started_at=1000.0, clock=iter([1006.25, 1007.0]).__next__)
    assert startup.seconds is None
    startup(step_event(step=1))
    startup(step_event(step=2))
    assert (notes, startup.seconds) == (["first step after 6.2 s"], 6.25)
