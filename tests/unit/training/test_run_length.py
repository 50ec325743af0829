"""Warnings about batches before a run starts."""

from __future__ import annotations

import pytest

from distrain.config import TrainConfig
from distrain.training.run_length import warn_of_batches


@pytest.mark.parametrize(
    ("settings", "num_replicas", "warning"),
    [
        ({}, 2, ""),
        ({}, 3, "--global-batch-size 128 does not divide by 3 replicas; using the nearest, 3 x 43 = 129"),
        ({"global_batch_size": 64}, 3, "--global-batch-size 64 does not divide by 3 replicas"),
        ({"batch_size": 43}, 3, ""),
        ({"batch_size": 600}, 2, "600 training examples make 1 batches of 600, fewer than the 2 replicas"),
    ],
)
def test_a_warning_names_batches_that_differ_from_the_settings(caplog, settings, num_replicas, warning):
    warn_of_batches(TrainConfig(data="data", run="run", **settings), 600, num_replicas)
    assert warning in caplog.text
    assert bool(warning) == bool(caplog.messages)
