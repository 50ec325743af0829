"""A step that is trained again gives the weights of the run and names its examples; nothing in the run changes."""

from __future__ import annotations

import hashlib
import json
import shutil

import keras
import numpy as np
import pytest
from prepared_data import Result, rows, write_csv

import distrain
from distrain.cli.main import main
from distrain.config import TrainConfig
from distrain.errors import CheckpointError, ConfigurationError, DivergenceError
from distrain.runs.checkpoint import load_checkpoint
from distrain.training.replay import replay_step
from distrain.training.run import train

# Keras reads variables by a way that NumPy will drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BAD_ROW = 13
MODEL = {"dropout": 0.3, "units": 4, "jit_compile": False}


def contents(run):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    inputs = {"train": [write_csv(folder / "train.csv", rows(120))], "test": [write_csv(folder / "test.csv", rows(30))]}
    Result(**inputs, out=folder / "prepared", vectorizer="ngram", top_k=60)
    return folder / "prepared"


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run of 8 steps in 2 epochs; 32 examples a step, 24 in the last of an epoch."""
    run = tmp_path_factory.mktemp("run") / "1"
    train(TrainConfig(data=data, run=run, global_batch_size=32, epochs=2, checkpoint_every=1, keep=9, **MODEL))
    return run


@pytest.mark.parametrize(("first", "step"), [(1, 5), (4, 7), (6, 7)])
def test_a_step_gives_the_weights_of_the_run_again(run, first, step, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    for later in range(first + 1, 9):
        shutil.rmtree(copy / "checkpoints" / f"step-{later:08d}")
    before = contents(copy)
    found = replay_step(copy, step)
    assert contents(copy) == before
    assert (found["step"], found["epoch"], found["finite"], found["found"]) == (step, 2, True, None)
    assert found["from"].endswith(f"step-{first:08d}")
    saved, earlier = (load_checkpoint(run / "checkpoints" / f"step-{s:08d}").arrays for s in (step, step - 1))
    weights = [array.tobytes() for name, array in sorted(saved.items()) if name.startswith("model/")]
    assert found["weights_sha256"] == hashlib.sha256(b"".join(weights)).hexdigest()
    position = (step - 5) * 32
    order = distrain.epoch_order(120, seed=0, epoch=1)
    assert found["examples"] == order.examples(range(position, position + 32)).tolist()
    loss, count = (saved[name] - earlier.get(name, 0) for name in ("sums/0000", "sums/0001"))
    assert found["loss"] == pytest.approx(float(loss / count), rel=1e-5)


def test_without_a_checkpoint_training_starts_from_the_initial_weights(run, data, tmp_path, capsys):
    moved = shutil.copytree(data, tmp_path / "moved")
    expected = replay_step(run, 3)
    copy = shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(copy / "checkpoints")
    assert main(["replay", "--run", str(copy), "--step", "3", "--data", str(moved)]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found.pop("from") == "the initial weights"
    assert expected.pop("from").endswith("step-00000002")
    assert found == expected
    assert "training starts from the initial weights" in printed.err


def test_mistakes_are_told(run, data, tmp_path):
    with pytest.raises(ConfigurationError, match="--step is 9, but the run has only 8 steps"):
        replay_step(run, 9)
    other = tmp_path / "other"
    inputs = {"train": [write_csv(tmp_path / "train.csv", rows(60))], "test": [write_csv(tmp_path / "t.csv", rows(30))]}
    Result(**inputs, out=other, vectorizer="ngram", top_k=60)
    with pytest.raises(CheckpointError, match="was trained on other data"):
        replay_step(run, 3, data=other)
    fitted = tmp_path / "fitted"
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    distrain.fit(model, x=np.ones((8, 3)), y=np.ones(8), loss="mse", epochs=1, run=fitted, devices="cpu:1", verbose=0)
    with pytest.raises(ConfigurationError, match=r"trained by distrain\.fit"):
        replay_step(fitted, 1)


def build():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def test_a_bad_batch_is_named_in_a_trusted_run(tmp_path, monkeypatch):
    x = np.random.default_rng(0).normal(size=(24, 3)).astype("f4")
    x[BAD_ROW] = np.nan
    folder = tmp_path / "arrays"
    folder.mkdir()
    np.save(folder / "train.x.npy", x)
    np.save(folder / "train.y.npy", np.ones((24, 1), "f4"))
    monkeypatch.setattr("distrain.training.jobs.job.find_function", lambda name: build)
    config = TrainConfig(data=folder, run=tmp_path / "run", model="this:build", global_batch_size=4, checkpoint_every=1)
    with pytest.raises(DivergenceError) as ended:
        train(config)
    step = int(str(ended.value).partition(" at step ")[2].split()[0])
    with pytest.raises(ConfigurationError, match="add --trust"):
        replay_step(tmp_path / "run", step)
    found = replay_step(tmp_path / "run", step, trust=True)
    assert (found["finite"], found["found"]) == (False, "The loss is nan")
    assert BAD_ROW in found["examples"]
    assert len(found["examples"]) == 4
