"""Predictions on n replicas against arithmetic by hand, and the sentence about more replicas."""

from __future__ import annotations

import pytest

from distrain.config.plan import LINK_NAMES, PlanConfig
from distrain.planning.links import HOROVOD_SECONDS, LINKS, Link
from distrain.planning.outlook import link_between
from distrain.planning.scale_out import MeasuredStep, Size, step_on, verdict

LINK = Link(10e9, 0.002)
STEP = MeasuredStep(seconds=0.030, batch_size=64, floor_seconds=0.006)


def test_one_replica_sums_nothing():
    step = step_on(Size(1, 64, 1e9, 1e6), STEP, LINK)
    assert (step.seconds, step.exposed_seconds, step.all_reduce_seconds) == (0.030, 0.0, 0.0)
    assert step.samples_per_second == pytest.approx(64 / 0.030)


@pytest.mark.parametrize(("batch_size", "seconds"), [(64, 0.030), (32, 0.018), (128, 0.054), (0, 0.006)])
def test_computation_follows_the_batch_down_to_the_floor(batch_size, seconds):
    assert STEP.compute_seconds(batch_size) == pytest.approx(seconds)


def test_a_floor_above_the_step_is_the_whole_step():
    assert MeasuredStep(0.002, 64, 0.0025).compute_seconds(8) == 0.002


def test_a_sum_of_one_bucket_hides_nothing():
    """2 * 3/4 * 20 MB at 10 GB/s are 3 ms, and 2 ms of latency."""
    step = step_on(Size(4, 64, 20e6, 1e6), STEP, LINK)
    assert step.exposed_seconds == pytest.approx(0.005)
    assert step.seconds == pytest.approx(0.035)


def test_all_but_the_last_bucket_hides_under_the_backward_pass():
    """2 * 3/4 * 125 MB at 10 GB/s are 18.75 ms, of which the last bucket of 25 MiB takes 3.93 ms."""
    step = step_on(Size(4, 64, 125e6, 1e6), STEP, LINK)
    assert step.all_reduce_seconds == pytest.approx(0.01875 + 0.002)
    assert step.exposed_seconds == pytest.approx(0.00393216 + 0.002)


def test_a_sum_longer_than_the_backward_pass_is_exposed():
    """2 * 3/4 * 1 GB at 10 GB/s are 150 ms; backward takes 20 of 30 ms."""
    step = step_on(Size(4, 64, 1e9, 1e6), STEP, LINK)
    assert step.exposed_seconds == pytest.approx(0.150 - 0.020 + 0.002)


def test_a_large_gradient_that_comes_last_is_exposed():
    step = step_on(Size(4, 64, 125e6, 100e6), STEP, LINK)
    assert step.exposed_seconds == pytest.approx(0.015 + 0.002)


def test_bert_on_eight_gpus_as_on_paper():
    """Eight replicas: 440 MB over NVLink, 7 ms of computation, 94 MB last: 1.71 ms whole, 0.37 ms and latency wait."""
    step = step_on(Size(8, 32, 440e6, 94e6), MeasuredStep(0.007, 32, 0.0025), LINKS["nvlink"])
    assert step.all_reduce_seconds - HOROVOD_SECONDS == pytest.approx(1.71e-3, rel=0.01)
    assert step.exposed_seconds - HOROVOD_SECONDS == pytest.approx(0.37e-3, rel=0.02)


def predictions(numbers, *, global_batch=None, batch=None, seconds=0.003):
    measured = MeasuredStep(seconds, global_batch or batch, 0.0025)
    link = LINKS["nvlink"]
    return [step_on(Size(n, batch or global_batch // n, 5e6, 5e6), measured, link) for n in numbers]


def test_the_default_global_batch_on_eight_gpus_does_not_pay():
    said = verdict(predictions([1, 2, 4, 8], global_batch=128))
    assert said.startswith("More than 1 replica do not pay: 8 train 0.7")
    assert "16 examples" in said


def test_a_full_batch_for_each_gpu_pays():
    said = verdict(predictions([1, 2, 4, 8], batch=4096, seconds=0.1))
    assert said == "8 replicas pay: they train 7.9 times as fast as one."


def test_replicas_pay_up_to_a_number():
    """Steps of 16, 32 and 64: 6.99, 5.51 and 4.77 ms, so 1.27 times as fast, then 1.16 times."""
    said = verdict(predictions([1, 2, 4, 8, 16, 32, 64], global_batch=2048, seconds=0.05))
    assert said.startswith("More than 32 replicas do not pay: 64 train 1.2 times")


def test_a_few_more_replicas_are_judged_by_what_they_add():
    """From 4 to 6 replicas at most 1.5 times the speed is possible, of which 1.125 is enough."""
    assert verdict(predictions([1, 2, 4, 6], batch=4096, seconds=0.1)).startswith("6 replicas pay")


def test_the_names_of_links_are_those_of_the_table():
    assert tuple(LINKS) == LINK_NAMES


@pytest.mark.parametrize(
    ("settings", "number", "link"),
    [
        ({"link": "nvlink"}, 16, "nvlink"),
        ({"link": "nvlink", "hosts": 2, "network": "100gbe"}, 8, "nvlink"),
        ({"link": "nvlink", "hosts": 2, "network": "100gbe"}, 16, "100gbe"),
        ({"link": "pcie", "hosts": 2, "network": "rails-8x400g"}, 16, "pcie"),
    ],
)
def test_the_slowest_link_carries_the_sum(settings, number, link):
    assert link_between(PlanConfig(replicas=16, step_ms=1.0, **settings), number) == LINKS[link]


def test_a_measured_link_has_its_figures():
    link = link_between(PlanConfig(replicas=2, step_ms=1.0, bandwidth_gbs=3.0, latency_ms=0.5), 2)
    assert (link.bytes_per_second, link.latency_seconds) == (3e9, 0.0005)
