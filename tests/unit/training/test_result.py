"""A run ends with its best model; a run that was complete before keeps its summary."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from distrain.cluster.process_group import SingleProcess
from distrain.errors import CheckpointError
from distrain.runs.checkpoint import checkpoint_path, save_checkpoint
from distrain.runs.manifest import rewriting
from distrain.runs.progress import Progress
from distrain.runs.verification import verify_run
from distrain.training.result import finish_run


class OneWeight:
    """A model of one weight, which is its own state."""

    _distribute_strategy = None  # as Keras' models have it on one device

    def __init__(self, weight):
        self.weight = weight

    def restore(self, checkpoint):
        self.weight = float(checkpoint.arrays["weight"])

    def weights_digest(self):
        return f"digest of {self.weight}"

    def save(self, path):
        Path(path).write_text(str(self.weight))


def finish(run, *, best_step, was_complete=False, replaced_weights=False, damaged_step=None):
    """Finish a run of 8 steps, whose weight is the number of the step; return the result and the written summaries."""
    for step in (4, 8):
        save_checkpoint(run / "checkpoints", step, {"weight": np.array(float(step))}, {})
    if damaged_step:
        (checkpoint_path(run / "checkpoints", damaged_step) / "state.json").write_text("{")
    model, written = OneWeight(8.0), []
    setup = SimpleNamespace(
        config=SimpleNamespace(run=run, limit_batches=None),
        distribution=SimpleNamespace(group=SingleProcess(), num_replicas=1, name="single"),
        job=SimpleNamespace(data_digest="abc", metadata={}, validation=None),
        was_complete=was_complete,
        model_state=model,
        finalize_weights=lambda: None,
        trainable=SimpleNamespace(model=model),
    )
    actions = SimpleNamespace(
        early_stopping=SimpleNamespace(best_step=best_step, best_metrics={"val_loss": 0.5}),
        throughput=SimpleNamespace(samples_per_second=lambda: None),
        startup=SimpleNamespace(seconds=1.0),
        report=SimpleNamespace(finish=written.append),
        history=[{"loss": 1.0}],
        step_flags=None,
        callbacks=SimpleNamespace(replaced_weights=replaced_weights, history="of Keras"),
    )
    return finish_run(setup, actions, Progress(2, 0, 0, 8, 64, 4.0)), written


@pytest.mark.parametrize(("best_step", "weight"), [(4, 4.0), (8, 8.0), (None, 8.0)])
def test_the_best_model_is_restored_and_written(tmp_path, best_step, weight):
    result, written = finish(tmp_path, best_step=best_step)
    assert result.model.weight == weight
    assert (tmp_path / "model.keras").read_text() == str(weight)
    assert result.summary["weights_sha256"] == f"digest of {weight}"
    assert (result.summary["validation_loss"], result.summary["validation_accuracy"]) == (0.5, None)
    assert result.summary["samples_per_second"] == 16.0, "of all steps, as one call of the step measures nothing"
    assert written == [result.summary]


def test_weights_that_a_callback_sets_at_the_end_stay(tmp_path):
    result, _ = finish(tmp_path, best_step=4, replaced_weights=True)
    assert result.model.weight == 8.0
    assert result.keras_history == "of Keras"


def test_a_run_that_was_complete_keeps_its_summary(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps({"weights_sha256": "earlier"}))
    result, _ = finish(tmp_path, best_step=8, was_complete=True)
    assert result.summary == {"weights_sha256": "earlier"}


def test_a_damaged_summary_is_told_and_written_again(tmp_path, caplog):
    with rewriting(tmp_path, "summary.json"):
        (tmp_path / "summary.json").write_text(json.dumps({"weights_sha256": "earlier"}))
    (tmp_path / "summary.json").write_text(json.dumps({"weights_sha256": "forged."}))
    result, _ = finish(tmp_path, best_step=8, was_complete=True)
    assert result.summary["weights_sha256"] == "digest of 8.0"
    assert "summary.json was changed" in caplog.messages[0]
    assert verify_run(tmp_path).faults == {}


def test_a_damaged_best_checkpoint_is_an_error_that_names_the_other(tmp_path):
    with pytest.raises(CheckpointError, match=r"step-00000004/state\.json has 1 bytes.* best .*: step-00000008\."):
        finish(tmp_path, best_step=4, damaged_step=4)
