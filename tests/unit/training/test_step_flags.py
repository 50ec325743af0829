"""What processes tell each other with a step; they are threads here, and the step adds up what they tell."""

from __future__ import annotations

import json
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from threads_as_processes import on_all

from distrain.batch import Batch, step_flags
from distrain.errors import DataError
from distrain.runs.progress import Progress
from distrain.training.actions import StopRequest
from distrain.training.events import Decision, StepEvent
from distrain.training.step import Outcome
from distrain.training.step_flags import StepFlags


def batch(replica=0):
    return Batch(None, None, np.ones(2), 0, 0, 2.0, step_flags(replica))


def moment(step, decision=Decision.GO_ON):
    progress = Progress(global_step=step)
    return StepEvent(0, progress, step, 10, 1, 2, 0.1, dict, decision)


def step_of(process, diverging=()):
    """A step whose sums are of what all processes tell."""

    def step(batches):
        heard = [
            json.loads(content)
            for content in process.all_gather_bytes(json.dumps(batches[0].step_flags.tolist()).encode())
        ]
        stops, failures, _ = np.sum(heard, axis=0)
        return Outcome([np.float32(1.5), np.float32(2)], int(stops), int(failures), len(diverging), sum(diverging))

    return step


def run(process, stop, num_steps=6, fails_at=None, asked_at=None, diverging=()):
    """Steps until the notices say stop; gives what was done."""

    def batches():
        for step in range(1, num_steps + 1):
            if step == asked_at:
                stop.signal_name = "SIGTERM"
            if step == fails_at:
                raise DataError("shard 7 is damaged")
            yield [batch(process.rank)]

    told = StepFlags(process, stop)
    step = told.around(step_of(process, diverging), microbatches_per_process=1)
    with told.with_failure_batches(nullcontext(batches()), [batch(process.rank)]) as fed:
        for number, step_batches in enumerate(fed, 1):
            sums = step(step_batches)
            assert sums == [1.5, 2]
            if told.action(moment(number)) is Decision.STOP:
                return number, told.stopped_by()
    return told


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


@pytest.mark.parametrize(("diverging", "where"), [((), ""), ((1,), " on rank 1"), ((0, 1), " on several ranks")])
def test_where_the_loss_is_not_finite(diverging, where):
    told = on_all(2, lambda process: run(process, StopRequest(), diverging=diverging))
    assert [each.where_diverged() for each in told] == [where] * 2


def test_an_error_is_raised_at_its_step_among_several_in_a_call():
    """The process that fails goes on to the end of the call, as the others do."""

    def act(process):
        def batches():
            for step in range(1, 12):
                if step == 6 and process.rank == 1:
                    raise DataError("shard 7 is damaged")
                yield [batch(process.rank)]

        told = StepFlags(process, StopRequest())
        step = step_of(process)
        steps = told.around_steps(lambda group: [step(each) for each in group], microbatches_per_process=1)
        with told.with_failure_batches(nullcontext(batches()), [batch(process.rank)]) as fed:
            for number in (4, 8):
                assert steps([next(fed) for _ in range(4)]) == [[1.5, 2]] * 4
                told.action(moment(number))

    errors = on_all(3, act)
    assert {str(error) for error in errors} == {"step 6: shard 7 is damaged"}
    assert {error.reporting_rank for error in errors} == {1}


def test_nobody_stops_what_is_complete_or_unasked():
    told = StepFlags(SimpleNamespace(rank=0, num_processes=1), StopRequest())
    assert told.action(moment(1)) is Decision.GO_ON
    told.around(lambda batches: Outcome([], 1, 0, 0, 0), microbatches_per_process=1)([])
    assert told.stop_is_agreed()
    assert told.action(moment(2)) is Decision.STOP
    assert told.action(moment(2, Decision.FINISH)) is Decision.GO_ON
