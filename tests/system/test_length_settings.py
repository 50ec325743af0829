"""Limits end a run with an evaluation, a model and a summary; with larger limits the run goes on as if never ended."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

import distrain
from distrain.errors import CheckpointError
from distrain.runs.checkpoint import list_checkpoints, load_checkpoint

# Keras reads variables by a way that NumPy will drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NUM_EXAMPLES, NUM_VALIDATION, GLOBAL_BATCH, EPOCHS = 50, 40, 16, 3  # 4 steps an epoch; the last step has two examples
RNG = np.random.default_rng(5)
X = RNG.normal(size=(NUM_EXAMPLES + NUM_VALIDATION, 5)).astype("float32")
Y = (X @ RNG.normal(size=(5, 1))).astype("float32")
TRAIN = (X[:NUM_EXAMPLES], Y[:NUM_EXAMPLES])
VALIDATION = (X[NUM_EXAMPLES:], Y[NUM_EXAMPLES:])


def build():
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])


def optimizer():
    return keras.optimizers.SGD(0.02, momentum=0.9)


def trained(run, **settings):
    fixed = {"loss": "mse", "global_batch_size": GLOBAL_BATCH, "jit_compile": False}
    settings = {**fixed, "optimizer": optimizer(), "epochs": EPOCHS, **settings}
    return distrain.fit(build, TRAIN, VALIDATION, run=run, **settings)


def events(run, kind):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def last_arrays(run):
    arrays = load_checkpoint(list_checkpoints(run / "checkpoints")[-1]).arrays
    return {name: array for name, array in arrays.items() if name.startswith(("model/", "optimizer/"))}


def same_arrays(run, other):
    ours, theirs = last_arrays(run), last_arrays(other)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing ends early."""
    run = tmp_path_factory.mktemp("whole") / "run"
    trained(run)
    return run


@pytest.mark.parametrize("max_steps", [2, 4, 7])
@pytest.mark.parametrize("per_call", [1, 3])
def test_a_run_ends_at_its_last_step_and_goes_on_with_more(max_steps, per_call, whole, tmp_path):
    run = tmp_path / "run"
    result = trained(run, max_steps=max_steps, steps_per_execution=per_call)
    assert result.summary["global_steps"] == max_steps
    assert result.summary["validation_loss"] == min(e["val_loss"] for e in result.history)
    assert (run / "model.keras").is_file()
    assert events(run, "stop")[-1]["reason"] == "--max-steps is reached"
    again = trained(run, max_steps=max_steps, steps_per_execution=per_call)
    assert (again.summary, again.history) == (result.summary, result.history), "the run is finished"
    assert trained(run, steps_per_execution=per_call).summary["global_steps"] == 12
    same_arrays(run, whole)
    assert [e["loss"] for e in events(run, "epoch") if e["step"] % 4 == 0] == [
        e["loss"] for e in events(whole, "epoch")
    ]


def test_a_run_ends_in_time_and_goes_on_with_more(whole, tmp_path):
    run = tmp_path / "run"
    result = trained(run, max_time=0.001)
    assert result.summary["global_steps"] == 1
    assert result.summary["validation_loss"] == result.history[0]["val_loss"]
    assert events(run, "stop")[-1]["reason"] == "--max-time is reached"
    assert trained(run, max_time=0.001).history == result.history
    trained(run, max_time="1h")
    same_arrays(run, whole)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_validation_within_an_epoch_is_logged_and_changes_nothing(every, whole, tmp_path):
    trained(tmp_path / "run", validate_every=every)
    same_arrays(tmp_path / "run", whole)
    found = {e["step"]: e for e in events(tmp_path / "run", "evaluate")}
    ends = {e["step"]: e for e in events(whole, "epoch")}
    assert found.keys() == {step for step in range(1, 13) if step % every == 0} | ends.keys()
    assert all(found[step]["val_loss"] == end["val_loss"] for step, end in ends.items())
    between = set(found) - set(ends)
    assert len({e["val_loss"] for e in found.values()}) == len(found), "each validation sees other weights"
    assert all(found[step]["epoch"] == (step - 1) // 4 + 1 for step in between)


def test_a_dry_run_trains_and_validates_on_a_few_batches(tmp_path, capsys):
    run = tmp_path / "run"
    result = trained(run, limit_batches=2, epochs=2)
    keras.utils.set_random_seed(0)
    model = build()
    model.compile(optimizer(), loss="mse", run_eagerly=True)
    for epoch in range(2):
        rows = distrain.epoch_order(NUM_EXAMPLES, seed=0, epoch=epoch).examples(range(2 * GLOBAL_BATCH))
        for batch in (rows[:GLOBAL_BATCH], rows[GLOBAL_BATCH:]):
            model.train_on_batch(TRAIN[0][batch], TRAIN[1][batch])
    for ours, theirs in zip(result.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)
    first = slice(2 * GLOBAL_BATCH)
    loss = model.evaluate(VALIDATION[0][first], VALIDATION[1][first], batch_size=GLOBAL_BATCH, verbose=0)
    assert result.history[-1]["val_loss"] == pytest.approx(loss, rel=1e-5)
    assert (result.summary["limit_batches"], result.summary["global_steps"]) == (2, 4)
    assert "Dry run: --limit-batches trains and validates on 2 batches an epoch." in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="limit_batches = 2, not None"):
        trained(run, epochs=3)


def test_a_whole_run_says_that_nothing_was_limited(whole):
    assert json.loads((whole / "summary.json").read_text())["limit_batches"] is None
