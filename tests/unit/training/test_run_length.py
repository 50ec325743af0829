"""Warnings about batches and warm-up before a run starts."""

from __future__ import annotations

import pytest

from distrain.config import TrainConfig
from distrain.training.run_length import warn_of_batches, warn_of_warmup


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


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"warmup_steps": 10}, 10),
        ({"warmup_steps": 3, "max_steps": 2}, 2),
        ({"warmup_steps": 9}, None),
        ({}, None),
        ({"warmup_steps": 10, "schedule": "linear"}, None),  # refused where the optimizer is made
    ],
)
def test_a_warning_names_a_warm_up_that_never_ends(caplog, settings, steps):
    warn_of_warmup(TrainConfig(data="data", run="run", epochs=2, **settings), 600, 2)
    assert [f"but the run has {steps} steps" in message for message in caplog.messages] == [True] * (steps is not None)
