"""Epoch times against arithmetic by hand, and step times from run directories, also damaged directories."""

from __future__ import annotations

import json

import pytest

from distrain.data.plan import EpochPlan
from distrain.errors import CheckpointError, ConfigurationError
from distrain.planning.epoch_time import measured_step_seconds, plan_time
from distrain.planning.traffic import ring_seconds

EPOCH = EpochPlan(num_examples=51_000, num_replicas=4, batch_size=128)  # 100 steps


def test_an_epoch_by_hand():
    """An all-reduce of 2 * 3/4 * 8 MB at 12 GB/s adds 1 ms to 3 ms of computation."""
    wait = ring_seconds(8_000_000, num_replicas=EPOCH.num_replicas, bytes_per_second=12e9)
    time = plan_time(EPOCH, step_seconds=0.003, all_reduce_seconds=wait)
    assert time.all_reduce_seconds == pytest.approx(0.001)
    assert time.epoch_seconds == pytest.approx(0.4)
    assert time.samples_per_second == pytest.approx(127_500)
    assert time.efficiency == pytest.approx(0.75)


def test_without_a_bandwidth_communication_is_not_counted():
    time = plan_time(EPOCH, step_seconds=0.003)
    assert (time.all_reduce_seconds, time.efficiency) == (None, 1.0)
    assert time.epoch_seconds == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"step_seconds": 0.0}, "--step-ms"),
        ({"step_seconds": float("nan")}, "--step-ms"),
        ({"step_seconds": float("inf")}, "--step-ms"),
        ({"step_seconds": -1.0}, "--step-ms"),
    ],
)
def test_impossible_times_are_refused(settings, words):
    with pytest.raises(ConfigurationError, match=words):
        plan_time(EPOCH, **settings)


def run(folder, settings, summary):
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_the_step_of_a_run(tmp_path):
    settings = {"replica_batch_size": 32, "num_replicas": 2, "accumulation_steps": 4}
    folder = run(tmp_path, settings, {"samples_per_second": 25_600.0})
    assert measured_step_seconds(folder, batch_size=32, without_communication=False) == (pytest.approx(0.01), 32)
    assert measured_step_seconds(folder, batch_size=None, without_communication=False) == (pytest.approx(0.01), 32)
    with pytest.raises(ConfigurationError, match=r"measured at 32 examples .* this plan has 64"):
        measured_step_seconds(folder, batch_size=64, without_communication=False)
    with pytest.raises(ConfigurationError, match="on 2 replicas"):
        measured_step_seconds(folder, batch_size=32, without_communication=True)


@pytest.mark.parametrize(
    ("settings", "summary"),
    [
        ({}, {"samples_per_second": 1.0}),
        ({"replica_batch_size": 32, "num_replicas": 1}, {}),
        ({"replica_batch_size": 32, "num_replicas": 1}, {"samples_per_second": 0}),
        ({"replica_batch_size": 32, "num_replicas": 1}, {"samples_per_second": "many"}),
        ({"replica_batch_size": [32], "num_replicas": 1}, {"samples_per_second": 1.0}),
        ({"replica_batch_size": 32, "num_replicas": 1, "accumulation_steps": "2"}, {"samples_per_second": 1.0}),
    ],
)
def test_runs_without_a_recorded_speed_are_refused(tmp_path, settings, summary):
    with pytest.raises(CheckpointError, match="does not record"):
        measured_step_seconds(run(tmp_path, settings, summary), batch_size=32, without_communication=False)


def test_a_missing_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="not there"):
        measured_step_seconds(tmp_path / "absent", batch_size=32, without_communication=False)
