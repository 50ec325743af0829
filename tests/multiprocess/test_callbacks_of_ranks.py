"""Callbacks under two ranks: state over interruptions, files of the chief alone, a stop of one rank."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import pytest
from launching import needs_mpi, run_ranks

pytestmark = [pytest.mark.timeout(300), needs_mpi]

PROGRAM = Path(__file__).parent / "programs" / "callback_ranks.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("callbacks")
    ended = run_ranks("mpirun", 2, [sys.executable, str(PROGRAM), str(folder)])
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


def test_an_interrupted_run_ends_as_an_uninterrupted_one(ranks):
    """EarlyStopping(restore_best_weights=True) and ReduceLROnPlateau, interrupted twice by a signal to rank 1."""
    for notes in ranks:
        assert notes["weights"]["resumed"] == notes["weights"]["whole"]
        assert notes["history"]["resumed"] == notes["history"]["whole"]
    assert ranks[0]["weights"] == ranks[1]["weights"]
    rates = ranks[0]["history"]["whole"]["learning_rate"]
    assert len(rates) == 4, "patience ends the run"
    assert rates[-1] < rates[0]


def test_files_are_written_by_the_chief_alone(folder, ranks):
    assert [notes["is_chief"] for notes in ranks] == [True, False]
    assert [notes["loads_keras"] for notes in ranks] == [False, False]
    assert (folder / "epochs.txt").read_text().split() == ["0", "1", "2", "3"]
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.load_weights(folder / "m.weights.h5")


def test_a_stop_that_one_rank_asks_for_ends_all_at_its_batch(ranks):
    assert [notes["steps"]["one rank"] for notes in ranks] == [2, 2]
    assert [len(notes["history"]["one rank"]["loss"]) for notes in ranks] == [1, 1]
