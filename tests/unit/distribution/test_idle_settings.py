"""What ranks tell MPI and Horovod about waiting."""

from __future__ import annotations

import pytest

from distrain.cluster.world import World
from distrain.distribution.choose import idle_settings
from distrain.distribution.collectives.shared_memory import MAX_RANKS


@pytest.mark.parametrize(
    ("size", "local_size", "on_gpu", "is_slow"),
    [
        (2, 2, False, True),
        (MAX_RANKS, MAX_RANKS, False, True),
        (MAX_RANKS + 1, MAX_RANKS + 1, False, False),  # too many to share memory
        (4, 2, False, False),  # two machines
        (2, 2, True, False),  # sums are made by NCCL
    ],
)
def test_horovod_looks_for_work_less_often_where_gradients_do_not_pass_through_it(size, local_size, on_gpu, is_slow):
    settings = idle_settings(World(rank=1, size=size, local_rank=1, local_size=local_size), on_gpu=on_gpu)
    assert settings.pop("OMPI_MCA_mpi_yield_when_idle") == "1"
    assert settings == ({"HOROVOD_CYCLE_TIME": "20"} if is_slow else {})
