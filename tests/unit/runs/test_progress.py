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
