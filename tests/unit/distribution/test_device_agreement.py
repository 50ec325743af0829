"""Ranks on different devices: refused, or warned of, on all ranks alike."""

from __future__ import annotations

import logging

from threads_as_processes import on_all

from distrain.distribution.device_agreement import agree_on_devices
from distrain.errors import ConfigurationError


def ends(*own):
    return on_all(len(own), lambda group: agree_on_devices(group, own[group.rank]))


def test_ranks_of_one_kind_know_all_devices():
    assert ends("NVIDIA H200", "NVIDIA H200") == [["NVIDIA H200", "NVIDIA H200"]] * 2
    assert ends("CPU", "CPU", "CPU") == [["CPU"] * 3] * 3


def test_a_gpu_on_one_rank_and_none_on_another_is_refused_on_all(monkeypatch):
    monkeypatch.setenv("HOROVOD_HOSTNAME", "node7")
    for error in ends("CPU", "NVIDIA H200", "CPU"):
        assert isinstance(error, ConfigurationError)
        assert error.reporting_rank == 0
        assert "Rank 1 on node7 has a GPU (NVIDIA H200), but rank 0 on node7 computes on the CPU" in str(error)


def test_different_gpus_are_a_warning_of_the_chief(caplog):
    with caplog.at_level(logging.WARNING, logger="distrain"):
        models = ends("NVIDIA H200", "NVIDIA H200", "Tesla V100")
    assert models == [["NVIDIA H200", "NVIDIA H200", "Tesla V100"]] * 3
    (record,) = caplog.records
    assert "(2 x NVIDIA H200, 1 x Tesla V100)" in record.getMessage()


def test_a_rank_without_a_usable_device_ends_all_with_its_message():
    for error in ends("NVIDIA H200", ConfigurationError("node2 has a GPU that TensorFlow cannot use")):
        assert isinstance(error, ConfigurationError)
        assert (str(error), error.reporting_rank) == ("node2 has a GPU that TensorFlow cannot use", 1)
