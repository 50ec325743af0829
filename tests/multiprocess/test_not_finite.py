"""A number that is not finite, in each way to distribute: no such number is applied or saved, and a message says why.

The launched program is programs/not_finite.py. The witness of a skipped step is Keras' own `train_on_batch`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from strategy_runs import STRATEGIES, agreed_ends, run_by_strategy

from distrain.runs.checkpoint import list_checkpoints, load_checkpoint

pytestmark = pytest.mark.timeout(300)

PROGRAM = Path(__file__).parent / "programs" / "not_finite.py"
SKIPPED = ["skipped", "in one call", "accumulated"]


@pytest.fixture(scope="module", params=STRATEGIES)
def strategy(request):
    return request.param


@pytest.fixture(scope="module")
def folder(strategy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("not_finite")
    run_by_strategy(PROGRAM, folder, strategy)
    return folder


@pytest.fixture(scope="module")
def ends(folder):
    return agreed_ends(folder)


WHERE = {"single": "", "mirrored": " on replica 1", "mpi": " on rank 1", "horovod": " on rank 1"}
FOUND = ", where the data of example 13 is not finite. Lower"


def test_the_message_names_step_rank_and_example(strategy, ends):
    where = WHERE[strategy]
    gradient = f"The gradient is not finite at step 2 (epoch 1){where}"
    assert ends["gradient"]["message"].startswith(gradient + FOUND)
    others = "8, 9, 10, 11, 12 and 3 others" if strategy == "single" else "12, 13, 14 and 15"
    assert ends["own gradient"]["message"].startswith(f"{gradient}, from examples {others} (all of them have finite")
    assert re.match(rf"The loss is (nan|inf) at step 2 \(epoch 1\){where}{FOUND}", ends["loss"]["message"])
    assert {ends[name]["code"] for name in ("gradient", "own gradient", "loss")} == {6}
    assert {ends[name]["reporting_rank"] for name in ("gradient", "own gradient", "loss")} == {0}


def test_nothing_that_is_not_finite_is_saved(folder):
    for run in ("gradient", "own", "loss", "skipped"):
        paths = list_checkpoints(folder / run / "checkpoints")
        assert len(paths) == (4 if run == "skipped" else 1)
        for path in paths:
            assert all(np.isfinite(array).all() for array in load_checkpoint(path).arrays.values())


def test_a_skipped_step_leaves_the_weights_of_a_run_without_the_step(ends):
    x = np.random.default_rng(0).normal(size=(24, 3)).astype("f4")
    layers = [("relu", 4), (None, 1)]
    dense = [keras.layers.Dense(units, kind, use_bias=False, kernel_initializer="ones") for kind, units in layers]
    model = keras.Sequential([keras.Input((3,)), *dense])
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    for first in (0, 16):
        model.train_on_batch(x[first : first + 8], x[first : first + 8].sum(1, keepdims=True))
    for name in SKIPPED:
        assert ends[name]["code"] == 0, ends[name]["message"]
        assert (ends[name]["summary"]["skipped_steps"], ends[name]["summary"]["global_steps"]) == (1, 3)
        assert ends[name]["summary"]["examples_trained"] == 16
        for own, expected in zip(ends[name]["weights"], model.get_weights(), strict=True):
            np.testing.assert_allclose(np.array(own), expected, rtol=1e-4, atol=1e-5)


def test_a_resumed_run_goes_on_counting(ends, folder):
    assert ends["again"]["code"] == 6
    assert "at step 5 (epoch 2)" in ends["again"]["message"]
    assert "The run has skipped 1 steps, as --skip-nonfinite allows." in ends["again"]["message"]
    events = [json.loads(line) for line in (folder / "skipped" / "metrics.jsonl").read_text().splitlines()]
    assert [(event["step"], event["skipped_steps"]) for event in events if event["event"] == "skip"] == [(2, 1)]
    losses = [event["loss"] for event in events if event["event"] == "epoch"]
    assert len(losses) == 1
    assert np.isfinite(losses[0])
