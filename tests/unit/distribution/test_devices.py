"""Which ranks make batches in a thread."""

from __future__ import annotations

import os

import pytest

from distrain.cluster.world import World
from distrain.distribution.devices import prefetches

CORES = os.sched_getaffinity(0)


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_ranks_that_share_out_the_cores():
    def rank(local_size: int) -> World:
        return World(rank=0, size=local_size, local_rank=0, local_size=local_size)

    assert prefetches({}, rank(1), on_gpu=False)
    assert not prefetches({}, rank(len(CORES)), on_gpu=False)
    assert prefetches({}, rank(len(CORES)), on_gpu=True)
