"""What a run says of its batches before it starts."""

from __future__ import annotations

import pytest

from distrain.config import TrainConfig
from distrain.training import run as train


@pytest.mark.parametrize(
    ("settings", "num_replicas", "told"),
    [
        ({}, 2, ""),
        ({}, 3, "--global-batch-size 128 does not divide by 3 replicas; using the nearest, 3 x 43 = 129"),
        ({"global_batch_size": 64}, 3, "--global-batch-size 64 does not divide by 3 replicas"),
        ({"batch_size": 43}, 3, ""),
        ({"batch_size": 600}, 2, "600 training examples make 1 batches of 600, fewer than the 2 replicas"),
    ],
)
def test_batches_that_are_not_what_was_asked_for_are_told(capsys, settings, num_replicas, told):
    config = TrainConfig(data="data", run="run", **settings)
    train._tell_about_batches(config, 600, num_replicas, config.replica_batch_size(num_replicas))
    error = capsys.readouterr().err
    assert told in error
    assert bool(told) == bool(error)
