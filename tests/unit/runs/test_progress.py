"""Progress adds up over steps and never changes in place."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from distrain.errors import CheckpointError
from distrain.runs.checkpoint import load_checkpoint, save_checkpoint
from distrain.runs.progress import Progress, progress_arrays, progress_state, read_progress


def test_steps_add_up_and_an_epoch_begins_anew():
    progress = Progress()
    for number in (64, 64, 7):
        progress = progress.after_step([np.float32(0.5), np.array([1, number], np.float32)], number, seconds=0.25)
    assert (progress.epoch, progress.position, progress.epoch_steps, progress.global_step) == (0, 135, 3, 3)
    assert (progress.examples_trained, progress.train_seconds) == (135, 0.75)
    assert [value.tolist() for value in progress.sums] == [1.5, [3.0, 135.0]]
    after = progress.after_epoch()
    assert (after.epoch, after.position, after.epoch_steps, after.sums) == (1, 0, 0, ())
    assert (after.global_step, after.examples_trained, after.train_seconds) == (3, 135, 0.75)
    assert after.after_step([1.0], 2, 0.0).position == 2


def test_sums_are_float64_so_that_large_epochs_keep_small_terms():
    progress = Progress().after_step([np.float32(2**24)], 1, 0.0)
    for _ in range(3):
        progress = progress.after_step([np.float32(1)], 1, 0.0)
    assert progress.sums[0].dtype == np.float64
    assert progress.sums[0] == 2**24 + 3  # float32 would stay at 2**24


def test_progress_does_not_change_in_place():
    first = Progress().after_step([np.ones(2)], 1, 0.0)
    first.after_step([np.ones(2)], 1, 0.0)
    assert first.sums[0].tolist() == [1.0, 1.0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.epoch = 3


def test_steps_must_have_the_same_sums():
    with pytest.raises(ValueError, match="zip"):
        Progress().after_step([1.0, 2.0], 1, 0.0).after_step([1.0], 1, 0.0)


def save(directory, progress):
    return load_checkpoint(save_checkpoint(directory, 5, progress_arrays(progress), progress_state(progress)))


def test_progress_comes_back_as_it_was(tmp_path):
    progress = Progress(2, 64, 1, 5, 320, 1.25, (np.array(2.5), np.array([1.0, 1e-300])))
    read = read_progress(save(tmp_path, progress))
    assert [value.tolist() for value in read.sums] == [2.5, [1.0, 1e-300]]
    assert all(value.dtype == np.float64 for value in read.sums)
    assert dataclasses.replace(read, sums=()) == dataclasses.replace(progress, sums=())
    assert read_progress(None) == Progress()
    foreign = save_checkpoint(tmp_path, 1, {}, {"epoch": 1})
    with pytest.raises(CheckpointError, match="'position' is missing"):
        read_progress(load_checkpoint(foreign))


def test_more_than_nine_sums_keep_their_order(tmp_path):
    read = read_progress(save(tmp_path, Progress(sums=tuple(np.array(float(number)) for number in range(12)))))
    assert [float(value) for value in read.sums] == list(range(12))


def early_stopping(**changes):
    return {"early_stopping": {"best_figures": {"val_loss": 0.5}, "best_step": 5, "epochs_since": 0, **changes}}


STATE = progress_state(Progress(2, 64, 1, 5, 320, 1.25)) | early_stopping()


def test_values_that_nobody_forged_are_read(tmp_path):
    assert load_checkpoint(save_checkpoint(tmp_path, 4, {}, STATE)).state == STATE


@pytest.mark.parametrize(
    "change",
    [
        *({name: value} for name in ("epoch", "position", "global_step") for value in (-1, 1.0, True, "3", [3], None)),
        *({name: value} for name in ("epoch_steps", "examples_trained", "skipped_steps") for value in (-1, 2**60, {})),
        *({name: value} for name in ("train_seconds", "run_seconds") for value in (-0.5, float("nan"), 1e999, "1", [])),
        {"epoch_steps": 6},
        {"skipped_steps": 6},
        *({name: value} for name in ("finished", "data_digest") for value in (3, None, ["epochs"])),
        *({name: value} for name in ("description", "variables", "architecture") for value in ("x", [], None)),
        {"early_stopping": [1]},
        early_stopping(best_step=-5),
        early_stopping(best_step="5"),
        early_stopping(epochs_since=None),
        early_stopping(epochs_since=10**30),
        early_stopping(best_figures=[0.5]),
        early_stopping(best_figures={"val_loss": "low"}),
        {"callbacks": None},
        {"callbacks": {"attributes": {"History.0": [1]}}},
        {"callbacks": {"attributes": {"History.0": {"epoch": "all"}}}},
    ],
)
def test_forged_values_are_refused(tmp_path, change):
    """The checksums of a forged checkpoint fit, as its forger can compute them."""
    path = save_checkpoint(tmp_path, 5, {}, STATE | change)
    with pytest.raises(CheckpointError, match=r'state.json is forged or of another version: "'):
        load_checkpoint(path)


def test_forged_sums_are_refused(tmp_path):
    sums = {"sums/0000": np.array([True])}
    with pytest.raises(CheckpointError, match="no floating numbers"):
        read_progress(load_checkpoint(save_checkpoint(tmp_path, 5, sums, progress_state(Progress()))))


def test_a_position_outside_of_the_data_is_refused(tmp_path):
    checkpoint = load_checkpoint(save_checkpoint(tmp_path, 5, {}, progress_state(Progress(position=64))))
    assert read_progress(checkpoint, num_examples=64).position == 64
    with pytest.raises(CheckpointError, match="example 64, but the training data has 63"):
        read_progress(checkpoint, num_examples=63)
