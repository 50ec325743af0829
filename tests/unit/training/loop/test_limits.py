"""A limit ends a run at the same step on all ranks; only the chief's clock counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from step_events import step_event
from threads_as_processes import on_all

from distrain.cluster.process_group import SingleProcess
from distrain.config import TrainConfig
from distrain.training.loop.events import Decision
from distrain.training.loop.limits import CHECK_SECONDS, Limits

GO_ON, FINISH = Decision.GO_ON, Decision.FINISH


class Clock:
    """A clock that each step moves on."""

    def __init__(self, seconds_per_step):
        self.now = 1000.0
        self.seconds_per_step = seconds_per_step

    def __call__(self):
        return self.now

    def step(self):
        self.now += self.seconds_per_step


class CountingGroup(SingleProcess):
    """A group that counts its collectives."""

    def all_gather_bytes(self, content):
        object.__setattr__(self, "exchanges", getattr(self, "exchanges", 0) + 1)
        return [content]


def last_step(limits, clock, *, first=0, steps=10_000):
    """Return the step at which the run finishes; None if it does not."""
    for step in range(first + 1, first + steps + 1):
        clock.step()
        if limits.after_step(step_event(step, num_steps=10**9)) is FINISH:
            return step
    return None


def limits_of(group=None, *, first=0, before=0.0, clock=None, **settings):
    config = TrainConfig(data="d", run="r", **settings)
    return Limits(config, group or SingleProcess(), first, before, clock or Clock(1.0))


def test_without_a_limit_a_run_goes_on_and_exchanges_nothing():
    group, clock = CountingGroup(), Clock(5.0)
    limits = limits_of(group, clock=clock)
    assert last_step(limits, clock) is None
    assert limits.after_epoch(step_event()) is GO_ON
    assert (limits.reached, hasattr(group, "exchanges")) == ("", False)


@pytest.mark.parametrize("first", [0, 4])
def test_the_steps_before_a_resume_count(first):
    limits, clock = limits_of(first=first, max_steps=7), Clock(1.0)
    assert limits.before_epoch(0) is GO_ON
    assert last_step(limits, clock, first=first) == 7
    assert limits.reached == "--max-steps"


def test_a_run_that_is_beyond_its_steps_finishes_before_it_trains():
    assert limits_of(first=9, max_steps=7).before_epoch(0) is FINISH


@pytest.mark.parametrize("seconds_per_step", [0.004, 0.3, 7.0, 200.0])
@pytest.mark.parametrize("before", [0.0, 40.0])
def test_a_run_ends_in_time_with_few_exchanges(seconds_per_step, before):
    group, clock = CountingGroup(), Clock(seconds_per_step)
    limits = limits_of(group, before=before, clock=clock, max_time=60)
    step = last_step(limits, clock, steps=100_000)
    spent = before + step * seconds_per_step
    assert 60 <= spent <= 60 + max(CHECK_SECONDS, seconds_per_step)
    assert limits.seconds() == pytest.approx(spent)
    assert limits.reached == "--max-time"
    assert group.exchanges <= min(step, 80 + (60 - before) / CHECK_SECONDS)


def test_the_time_of_a_validation_counts_at_the_end_of_the_epoch():
    clock = Clock(1.0)
    limits = limits_of(clock=clock, max_time=60)
    clock.step()
    assert limits.after_step(step_event(1, num_steps=1)) is GO_ON
    clock.now += 100
    assert limits.after_epoch(step_event(1, num_steps=1)) is FINISH


def test_ranks_with_other_clocks_finish_at_the_chiefs_step():
    def run(process):
        clock = Clock([0.5, 30.0, 0.001][process.rank])
        return last_step(limits_of(process, clock=clock, max_time="1m"), clock, steps=300)

    steps = on_all(3, run)
    assert len(set(steps)) == 1
    assert 120 <= steps[0] <= 122


def test_a_limit_that_is_reached_stays_reached():
    limits = limits_of(max_steps=3)
    event = step_event(3, num_steps=3)
    assert [limits.after_step(event), limits.after_epoch(replace(event, decision=FINISH))] == [FINISH, FINISH]
