"""Flags of several processes, which are threads here; the step sums their flags."""

from __future__ import annotations

import json
from contextlib import nullcontext

import numpy as np
import pytest
from step_events import step_event
from threads_as_processes import on_all

from distrain.batch import Batch, step_flags
from distrain.cluster.process_group import SingleProcess
from distrain.cluster.signals import StopRequest
from distrain.errors import DataError
from distrain.training.loop.events import Decision, NotFinite
from distrain.training.loop.step_flags import StepFlags
from distrain.training.steps.finite import BAD_GRADIENT, BAD_LOSS
from distrain.training.steps.outcome import Outcome


def batch(replica=0):
    return Batch(None, None, np.ones(2), 0, 0, 2, 2, step_flags(replica))


def step_of(process, diverging=()):
    """A step that sums the flags of all processes."""

    def step(batches):
        own = json.dumps(batches[0].step_flags.tolist()).encode()
        stops, failures, _ = np.sum([json.loads(flags) for flags in process.all_gather_bytes(own)], axis=0)
        bad = tuple(BAD_LOSS * (rank in diverging) for rank in range(process.size))
        return Outcome([np.float32(1.5), np.float32(2)], int(stops), int(failures), 0, bad)

    return step


def run(process, stop, num_steps=6, fails_at=None, asked_at=None, diverging=()):
    """Run steps until a flag stops them; return the last step and who asked, or else the flags."""

    def batches():
        for step in range(1, num_steps + 1):
            if step == asked_at:
                stop.signal_name = "SIGTERM"
            if step == fails_at:
                raise DataError("shard 7 is damaged")
            yield [batch(process.rank)]

    flags = StepFlags(process, stop)
    step = flags.around(step_of(process, diverging))
    with flags.with_failure_batches(nullcontext(batches()), [batch(process.rank)]) as fed:
        for number, step_batches in enumerate(fed, 1):
            sums = step(step_batches)
            assert sums == [1.5, 2]
            if flags.action(step_event(number)) is Decision.STOP:
                return number, flags.stopped_by()
    return flags


def test_a_request_to_one_stops_all_at_the_same_step():
    def act(process):
        return run(process, StopRequest(), asked_at=3 if process.rank == 1 else None)

    assert on_all(3, act) == [(3, "SIGTERM to rank 1")] * 3


def test_two_requests_are_both_named():
    def act(process):
        return run(process, StopRequest(), asked_at=2 if process.rank != 1 else None)

    assert on_all(3, act) == [(2, "SIGTERM to rank 0, SIGTERM to rank 2")] * 3


def test_an_error_in_one_loader_is_raised_on_all_before_they_go_on():
    def act(process):
        return run(process, StopRequest(), fails_at=4 if process.rank == 1 else None)

    errors = on_all(3, act)
    assert [type(error) for error in errors] == [DataError] * 3
    assert {str(error) for error in errors} == {"step 4: shard 7 is damaged"}
    assert {error.reporting_rank for error in errors} == {1}


def test_alone_an_error_of_the_loader_is_raised_as_it_is():
    (error,) = on_all(1, lambda process: run(process, StopRequest(), fails_at=2))
    assert (str(error), error.reporting_rank) == ("shard 7 is damaged", None)


@pytest.mark.parametrize("diverging", [(), (1,), (0, 1)])
def test_where_the_loss_is_not_finite(diverging):
    flags = on_all(2, lambda process: run(process, StopRequest(), diverging=diverging))
    assert [each.bad_evaluation() for each in flags] == [diverging] * 2


def test_a_step_that_is_not_finite_has_no_sums():
    def outcome(total, *shares):
        return Outcome([np.float32("nan")], 0, 0, total, shares)

    steps = [
        outcome(0, 0, 0),
        outcome(0, BAD_LOSS, BAD_GRADIENT),
        outcome(0, 0, BAD_GRADIENT),
        outcome(BAD_GRADIENT, 0),
    ]
    run_steps = StepFlags(SingleProcess(), StopRequest()).around_steps(lambda group: steps)
    _, *bad = run_steps([[]])
    gradient = "The gradient is not finite"
    assert bad == [NotFinite("The loss is nan", (0, 1)), NotFinite(gradient, (1,)), NotFinite(gradient, ())]


def test_an_error_is_raised_at_its_step_among_several_in_a_call():
    """The failed process completes the call of several steps, like the others."""

    def act(process):
        def batches():
            for step in range(1, 12):
                if step == 6 and process.rank == 1:
                    raise DataError("shard 7 is damaged")
                yield [batch(process.rank)]

        flags = StepFlags(process, StopRequest())
        step = step_of(process)
        steps = flags.around_steps(lambda group: [step(each) for each in group])
        with flags.with_failure_batches(nullcontext(batches()), [batch(process.rank)]) as fed:
            for number in (4, 8):
                assert steps([next(fed) for _ in range(4)]) == [[1.5, 2]] * 4
                flags.action(step_event(number))

    errors = on_all(3, act)
    assert {str(error) for error in errors} == {"step 6: shard 7 is damaged"}
    assert {error.reporting_rank for error in errors} == {1}


def test_no_process_stops_when_training_is_complete_or_nobody_asked():
    flags = StepFlags(SingleProcess(), StopRequest())
    assert flags.action(step_event(1)) is Decision.GO_ON
    flags.around(lambda batches: Outcome([], 1, 0, 0, ()))([])
    assert flags.stop_is_agreed()
    assert flags.action(step_event(2)) is Decision.STOP
    assert flags.action(step_event(2, decision=Decision.FINISH)) is Decision.GO_ON
