"""A finished run describes the text that it was trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from distrain.errors import CheckpointError
from distrain.inference.finished_run import FinishedRun
from distrain.runs.checkpoint import Checkpoint
from distrain.training.jobs.job import TextMetadata

TEXT = {"kind": "sequence", "num_features": 500, "max_length": 30, "classes": ["a", "b"]}


def run_with(**settings):
    return FinishedRun(Path("runs/1"), settings, Checkpoint(Path(), {}, {}))


def test_metadata_are_read_from_the_settings():
    assert run_with(text=TEXT).metadata == TextMetadata("sequence", 500, 30, ("a", "b"))


@pytest.mark.parametrize("settings", [{}, {"text": None}, {"text": {**TEXT, "num_features": "many"}}])
def test_a_run_without_text_is_refused(settings):
    with pytest.raises(CheckpointError, match=r"runs/1 was not trained on prepared text, which this command needs\."):
        _ = run_with(**settings).metadata


def test_rows_are_padded_for_a_users_model_and_packed_for_the_shipped_model():
    own = run_with(text=TEXT, data="data", run="run", model="models:build")
    shipped = run_with(text=TEXT, data="data", run="run")
    assert own.row_layout == {"length": 30, "pad_multiple": None}
    assert shipped.row_layout["pad_multiple"] > 0
