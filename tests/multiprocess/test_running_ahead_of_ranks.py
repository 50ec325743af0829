"""Replicas that begin a step before they read the sums of the step before agree on each end, at one step.

The launched program is programs/running_ahead.py. It treats CPUs as GPUs.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from strategy_runs import STRATEGIES, agreed_ends, run_by_strategy

from distrain.runs.checkpoint import list_checkpoints

pytestmark = pytest.mark.timeout(300)

PROGRAM = Path(__file__).parent / "programs" / "running_ahead.py"


@pytest.fixture(scope="module", params=[strategy for strategy in STRATEGIES if strategy != "single"])
def strategy(request):
    return request.param


@pytest.fixture(scope="module")
def folder(strategy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ahead")
    run_by_strategy(PROGRAM, folder, strategy)
    return folder


def test_each_end_is_the_same_on_all_ranks_and_counts_the_step_that_had_begun(folder, strategy):
    ends = agreed_ends(folder)
    assert {name: end["code"] for name, end in ends.items()} == {
        "read at once": 0,
        "loop": 0,
        "rows": 0,
        "skipped": 0,
        "skipped ahead": 0,
        "skipped loop ahead": 0,
        "loop ahead": 0,
        "rows ahead": 0,
        "rows loop ahead": 0,
        "ahead": 0,
        "stopped": 42,
        "resumed": 0,
        "not finite": 6,
        "not finite loop": 6,
        "damaged": 3,
        "damaged loop": 3,
    }
    receiver, owner = ("", "replica 1") if strategy == "mirrored" else (" to rank 1", "rank 1")
    assert f"SIGTERM{receiver} at step 8, with everything saved." in ends["stopped"]["message"]
    step = "" if strategy == "mirrored" else "step 4: "
    for way in ("", " loop"):
        message = ends[f"not finite{way}"]["message"]
        assert f"nan at step 4 (epoch 1) on {owner}, where the data of example 29" in message
        assert ends[f"damaged{way}"]["message"].startswith(f"{step}example 29 is damaged")


def test_weights_are_those_of_a_run_that_reads_each_step_at_once(folder):
    ends = agreed_ends(folder)
    assert ends["ahead"]["steps"] == ends["resumed"]["steps"] == 12
    for name in ("ahead", "resumed"):
        for own, wanted in zip(ends[name]["weights"], ends["read at once"]["weights"], strict=True):
            np.testing.assert_allclose(own, wanted, rtol=1e-5, atol=1e-6)
    assert ends["resumed"]["weights"] == ends["ahead"]["weights"], "bit by bit"


def test_steps_in_a_loop_of_the_graph_end_at_the_bits_of_single_steps(folder):
    ends = agreed_ends(folder)
    assert ends["loop"]["weights"] == ends["read at once"]["weights"]
    assert ends["loop ahead"]["weights"] == ends["ahead"]["weights"]


def test_rows_whose_update_selects_end_at_the_bits_of_a_condition(folder):
    ends = agreed_ends(folder)
    assert ends["rows ahead"]["weights"] == ends["rows"]["weights"]
    assert ends["rows loop ahead"]["weights"] == ends["rows"]["weights"]


def test_a_skipped_step_is_undone_on_each_replica(folder):
    ends = agreed_ends(folder)
    for own, wanted in zip(ends["skipped ahead"]["weights"], ends["skipped"]["weights"], strict=True):
        np.testing.assert_allclose(own, wanted, rtol=1e-5, atol=1e-6)
    assert ends["skipped loop ahead"]["weights"] == ends["skipped ahead"]["weights"], "bit by bit"


def test_the_batches_of_each_step_lie_on_the_device_of_their_replica(folder, strategy):
    placed = [json.loads(path.read_text()) for path in sorted(folder.glob("placed.*.json"))]
    assert placed == ([[["CPU:0", "CPU:1"]]] if strategy == "mirrored" else [[["CPU:0"]], [["CPU:0"]]])


def test_nothing_is_saved_after_a_step_that_is_not_finite(folder):
    assert [path.name for path in list_checkpoints(folder / "not finite" / "checkpoints")] == [
        f"step-{number:08d}" for number in (1, 2, 3)
    ]
