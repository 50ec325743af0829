"""Callbacks under two ranks: state over interruptions, files of the chief alone, a stop of one rank."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from launching import needs_mpi, run_ranks
from preloaded import preloaded_python

import distrain

pytestmark = [pytest.mark.timeout(300), needs_mpi]

PROGRAM = Path(__file__).parent / "programs" / "callback_ranks.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("callbacks")
    ended = run_ranks("mpirun", 2, [*preloaded_python(), str(PROGRAM), str(folder)])
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


def weights_in(path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.load_weights(path)
    return model.get_weights()


def test_an_interrupted_run_ends_as_an_uninterrupted_one(ranks):
    """With ten callbacks of Keras; rank 1 is interrupted in each of three epochs."""
    for notes in ranks:
        assert notes["weights"]["resumed"] == notes["weights"]["whole"]
        assert notes["history"]["resumed"] == notes["history"]["whole"]
    assert ranks[0]["weights"] == ranks[1]["weights"]
    rates = ranks[0]["history"]["whole"]["learning_rate"]
    assert len(rates) == 4, "patience ends the run"
    assert rates[-1] < 0.9 * rates[-2], "scheduled, and reduced on a plateau"


def test_an_interrupted_run_leaves_the_files_of_an_uninterrupted_one(folder):
    whole, stopped = (sorted((folder / f"{run} files").iterdir()) for run in ("whole", "stopped"))
    assert [path.name for path in stopped] == [path.name for path in whole]
    kinds = {name: sum(path.name.startswith(name) for path in whole) for name in ("auc", "close", "log", "rank", "1-")}
    assert kinds == {"auc": kinds["auc"], "close": kinds["close"], "log": 1, "rank": 2, "1-": 1}
    assert min(kinds.values()) > 0
    for one, other in zip(whole, stopped, strict=True):
        if one.suffix == ".h5":
            for a, b in zip(weights_in(one), weights_in(other), strict=True):
                np.testing.assert_array_equal(a, b, err_msg=one.name)
        else:
            assert one.read_text() == other.read_text(), one.name
    assert len((folder / "whole files" / "log.csv").read_text().splitlines()) == 5, "a head and four epochs"


def test_a_figure_of_unknown_direction_is_refused_on_all_ranks(ranks):
    for notes in ranks:
        assert "ModelCheckpoint monitors 'val_closeness'" in notes["refused"]
        assert 'mode="max"' in notes["refused"]


def test_files_are_written_by_the_chief_alone(folder, ranks):
    assert [notes["is_chief"] for notes in ranks] == [True, False]
    assert (folder / "epochs.txt").read_text().split() == ["0", "1", "2", "3"]
    assert list((folder / "one rank").glob("checkpoints/step-*")), "the chief saved"


def test_a_rank_knows_whether_it_is_the_chief_before_keras_is_imported(tmp_path):
    program = (
        "import os, sys, distrain; from pathlib import Path; file = Path(os.environ['OMPI_COMM_WORLD_RANK']);"
        "file.write_text(f'{distrain.is_chief()} {\"keras\" in sys.modules}')"
    )
    ended = run_ranks("mpirun", 2, [sys.executable, "-c", program], cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"0": "True False", "1": "False False"}


def test_a_stop_that_one_rank_asks_for_ends_all_at_its_batch(ranks):
    assert [notes["steps"]["one rank"] for notes in ranks] == [2, 2]
    assert [len(notes["history"]["one rank"]["loss"]) for notes in ranks] == [1, 1]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras reads variables so
def test_a_falling_rate_falls_on_where_one_rank_continues_a_run_of_two(folder):
    random = np.random.default_rng(0)
    x = random.normal(size=(31, 3)).astype("f4")
    y = (x.sum(1, keepdims=True) + random.normal(size=(31, 1)) > 0).astype("f4")

    def build():
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, "sigmoid", kernel_initializer="ones")])

    settings = {"loss": "mse", "metrics": ["auc"], "global_batch_size": 8, "epochs": 6, "jit_compile": False}
    settings |= {"schedule": "cosine", "warmup_steps": 3, "learning_rate": 0.05, "strategy": "single", "verbose": 0}
    assert not (folder / "cosine" / "summary.json").exists()
    continued = distrain.fit(build, (x, y), (x, y), run=folder / "cosine", **settings)
    whole = distrain.fit(build, (x, y), (x, y), **settings)
    assert continued.summary["global_steps"] == whole.summary["global_steps"] == 24
    assert '"event": "resume", "step": 11, "epoch": 3' in (folder / "cosine" / "metrics.jsonl").read_text()
    for own, wanted in zip(continued.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_allclose(own, wanted, rtol=1e-5)
