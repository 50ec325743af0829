"""Models, inputs, losses, optimizers and callbacks of Keras, through `distrain.fit`, at 1, 2 and 4 replicas."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

EXACT = ["image", "two_inputs", "csr", "callbacks"]  # unlike the case with Keras's own dropout
SETTINGS = {"global_batch_size": 64, "epochs": 3, "jit_compile": False}


@pytest.fixture(scope="module")
def runs(many_runs, tmp_path_factory):
    """A folder of runs CASE-REPLICAS."""
    out = tmp_path_factory.mktemp("any-model")
    each = [(case, n) for case in EXACT for n in (1, 2, 4)] + [("mostly_weightless", n) for n in (1, 4)]
    many_runs([{**SETTINGS, "devices": f"cpu:{n}", "case": case, "run": out / f"{case}-{n}"} for case, n in each])
    return out


def history_of(run: Path) -> dict:
    return json.loads((run / "history.json").read_text())


def same_metrics(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(math.isclose(one[name], two[name], abs_tol=1e-6) for name in one)


@pytest.mark.parametrize("replicas", [2, 4])
@pytest.mark.parametrize("case", EXACT)
def test_models_do_not_depend_on_the_number_of_replicas(case, replicas, runs, difference):
    apart = difference(runs / f"{case}-1", runs / f"{case}-{replicas}")
    assert apart.weights <= 1e-5
    assert apart.validation_loss <= 1e-6


@pytest.mark.parametrize("replicas", [2, 4])
@pytest.mark.parametrize("case", EXACT)
def test_all_metrics_are_the_same(case, replicas, runs):
    one, many = (history_of(runs / f"{case}-{number}")["history"] for number in (1, replicas))
    assert len(one) == len(many) == (2 if case == "callbacks" else 3)
    assert all(same_metrics(a, b) for a, b in zip(one, many, strict=True)), (one, many)


@pytest.mark.parametrize("case", EXACT)
def test_training_lowers_the_loss(case, runs):
    losses = [epoch["loss"] for epoch in history_of(runs / f"{case}-1")["history"]]
    assert losses[-1] < losses[0]


def test_callbacks_see_each_step_and_epoch_and_may_stop(runs):
    (seen,) = history_of(runs / "callbacks-1")["seen"]
    assert [event[:2] for event in seen] == [
        *(["step", step] for step in range(6)),
        ["epoch", 0],
        *(["step", step] for step in range(6)),
        ["epoch", 1],
    ]
    (seen_by_four,) = history_of(runs / "callbacks-4")["seen"]
    assert all(same_metrics(one[2], four[2]) for one, four in zip(seen, seen_by_four, strict=True))


def test_a_scheduler_changes_the_optimizer_that_trains(runs):
    (seen,) = history_of(runs / "callbacks-1")["seen"]
    rates = [event[2]["learning_rate"] for event in seen if event[0] == "epoch"]
    assert rates == pytest.approx([0.05, 0.025])  # SGD's, not that of the compiled Adam


@pytest.mark.parametrize("replicas", [1, 4])
def test_steps_whose_examples_all_weigh_nothing_change_nothing_to_nan(replicas, runs, last_weights):
    weights = last_weights(runs / f"mostly_weightless-{replicas}")
    assert all(np.isfinite(array).all() for array in weights.values())
    losses = [epoch["loss"] for epoch in history_of(runs / f"mostly_weightless-{replicas}")["history"]]
    assert all(0 < loss < 10 for loss in losses)
