"""The trial of a build, with stand-ins for Horovod and the GPUs: what it sums, and what it refuses."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import tensorflow as tf

from distrain.install.trial import sum_over_ranks


@pytest.fixture
def hvd(monkeypatch):
    """Horovod of one rank, which sums nothing."""
    module = ModuleType("horovod.tensorflow")
    module.Sum = object()
    module.factor = 1.0
    module.init = lambda: None
    module.gloo_built = module.mpi_built = lambda: True
    module.nccl_built = lambda: 0
    module.rank = module.local_rank = lambda: 0
    module.size = lambda: 1
    module.allreduce = lambda tensor, op: tensor * module.factor
    monkeypatch.setitem(sys.modules, "horovod", ModuleType("horovod"))
    monkeypatch.setitem(sys.modules, "horovod.tensorflow", module)
    sys.modules["horovod"].tensorflow = module
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, kind: None)
    return module


def test_a_right_sum_says_where_it_was(hvd):
    assert sum_over_ranks(1, ["Gloo", "MPI"]).endswith("sums over 1 rank(s) on the CPU")


def test_a_wrong_sum_is_refused(hvd):
    hvd.factor = 2.0
    with pytest.raises(SystemExit, match=r"must be 1\.0 everywhere"):
        sum_over_ranks(1, [])


def test_another_number_of_ranks_is_refused(hvd):
    with pytest.raises(SystemExit, match="but 1 found"):
        sum_over_ranks(2, [])


def test_a_sum_on_the_cpu_is_no_trial_of_nccl(hvd):
    with pytest.raises(SystemExit, match="sees no GPU"):
        sum_over_ranks(1, [], needs_gpu=True)


def test_a_library_that_a_build_lacks_is_named(hvd):
    with pytest.raises(SystemExit, match="built without NCCL"):
        sum_over_ranks(1, ["MPI", "NCCL"])
