"""The best or the named checkpoint serves; a damaged checkpoint is never exchanged for another."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from distrain.errors import CheckpointError
from distrain.runs import served, verification
from distrain.runs.checkpoint import remove_checkpoints, save_checkpoint
from distrain.runs.manifest import load_own_checkpoint
from distrain.runs.served import load_best_step, load_served

FILES = ("arrays.safetensors", "state.json", "manifest.json")


def save(run, step, best_step=None):
    state = {"global_step": step, "early_stopping": {"best_step": best_step}}
    return save_checkpoint(run / "checkpoints", step, {"weight": np.array(float(step))}, state)


@pytest.fixture
def run(tmp_path):
    """A run whose best step is 5, with checkpoints of steps 4, 5 and 6."""
    for step in (4, 5, 6):
        save(tmp_path, step, best_step=min(step, 5))
    return tmp_path


def step_of(checkpoint):
    return checkpoint.state["global_step"]


def test_the_best_checkpoint_serves(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        load_served(tmp_path)
    save(tmp_path, 3)
    assert step_of(load_served(tmp_path)) == 3
    save(tmp_path, 5, best_step=3)
    assert step_of(load_served(tmp_path)) == 3
    save(tmp_path, 7, best_step=7)
    assert step_of(load_served(tmp_path)) == 7


def test_a_checkpoint_is_chosen_by_name_or_path(run, tmp_path_factory):
    assert step_of(load_served(run, "step-00000004")) == 4
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "step-00000006"
    shutil.copytree(run / "checkpoints" / "step-00000006", elsewhere)
    assert step_of(load_served(run, str(elsewhere))) == 6
    with pytest.raises(CheckpointError, match=r"step-00000009 .*: step-00000004, step-00000005, step-00000006\."):
        load_served(run, "step-00000009")


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip_a_bit, lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("step", "meaning", "others"),
    [
        (5, "It is the best checkpoint of the run", "step-00000004, step-00000006"),
        (6, "The newest checkpoint tells which one is the best", "step-00000004, step-00000005"),
    ],
)
def test_a_damaged_checkpoint_is_never_exchanged(run, step, meaning, others, name, damage):
    damage(run / "checkpoints" / f"step-{step:08}" / name)
    with pytest.raises(CheckpointError, match=rf"step-{step:08}.* {meaning}\. .*--checkpoint .*: {others}\."):
        load_served(run)
    assert step_of(load_served(run, "step-00000004")) == 4


def test_without_another_checkpoint_the_error_says_so(run):
    for step in (4, 6):
        flip_a_bit(run / "checkpoints" / f"step-{step:08}" / "state.json")
    shutil.rmtree(run / "checkpoints" / "step-00000005")
    with pytest.raises(CheckpointError, match=r"No other checkpoint of the run can be used"):
        load_best_step(run / "checkpoints", 5)


def test_a_checkpoint_that_a_job_removes_meanwhile_is_no_fault(run, monkeypatch):
    """The job saves step 7, the new best, and removes step 5 after the reader has read step 6."""

    def load_slowly(path):
        checkpoint = load_own_checkpoint(path)
        if path.name == "step-00000006":
            save(run, 7, best_step=7)
            remove_checkpoints([run / "checkpoints" / "step-00000005", path])
        return checkpoint

    monkeypatch.setattr(served, "load_own_checkpoint", load_slowly)
    assert step_of(load_served(run)) == 7


def test_a_checkpoint_that_a_job_removes_is_not_damaged(run, monkeypatch):
    monkeypatch.setattr(verification, "read_json_object", lambda path: remove_checkpoints([path.parent]) or {})
    assert list(verification.verify_run(run).faults) == ["manifest.json"]  # which this run never had
