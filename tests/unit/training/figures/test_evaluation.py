"""An evaluation with steps made of plain numbers."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np

from distrain.training.figures.evaluation import evaluate_all


@contextmanager
def steps_of(*batches):
    yield iter(batches)


def sums(batch):
    return [np.float32(sum(batch)), np.float32(len(batch))]


def mean(total):
    return {"loss": float(total[0] / total[1])}


def test_an_evaluation_counts_each_example_once():
    assert evaluate_all(steps_of([1, 2, 3], [4], [10, 10]), sums, mean) == {"loss": 5.0}


def test_an_evaluation_reports_each_step():
    reported = []
    evaluate_all(steps_of([1], [2], [3]), sums, mean, after_step=reported.append)
    assert reported == [1, 2, 3]


def test_an_evaluation_adds_up_in_float64():
    total = evaluate_all(steps_of([2.0**24], [1], [1], [1]), sums, lambda total: {"sum": float(total[0])})
    assert total == {"sum": 2.0**24 + 3}


def test_an_evaluation_is_interrupted_between_two_steps():
    done = []

    def step(batch):
        done.append(batch)
        return sums(batch)

    assert evaluate_all(steps_of([1], [2], [3]), step, mean, interrupted=lambda: len(done) == 2) is None
    assert done == [[1], [2]]
