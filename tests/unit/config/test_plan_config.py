"""Settings of `distrain plan`: wrong values and combinations are refused by name."""

from __future__ import annotations

import pytest

from distrain.config import PlanConfig
from distrain.errors import ConfigurationError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replicas": 0}, "--replicas is 0, but it must be at least 1"),
        ({"step_ms": 0.0}, "--step-ms is 0.0, but it must be above 0 and finite"),
        ({"step_ms": float("nan")}, "--step-ms is nan"),
        ({"step_ms": 1.0, "bandwidth_gbs": float("inf")}, "--bandwidth-gbs is inf"),
        ({"step_ms": 1.0, "measured_run": "runs/1"}, "--run is 'runs/1', but it must be left out when --step-ms"),
        ({"link": "nvlink"}, "--link is 'nvlink', but it must be left out unless the time of a step is given"),
        ({"step_ms": 1.0, "link": "lan"}, "--link is 'lan', but it must be one of nvlink, pcie"),
        ({"step_ms": 1.0, "link": "pcie", "bandwidth_gbs": 1.0}, "--link is 'pcie', but it must be left out when"),
        ({"step_ms": 1.0, "latency_ms": 1.0}, "--latency-ms is 1.0, but it must be left out unless --bandwidth-gbs"),
        ({"step_ms": 1.0, "floor_ms": 1.0}, "--floor-ms is 1.0, but it must be left out unless --link"),
        ({"replicas": 6, "hosts": 4}, "--hosts is 4, but it must be a divisor of --replicas 6"),
        ({"step_ms": 1.0, "link": "pcie", "hosts": 2}, "--network is None, but it must be given together with several"),
        ({"step_ms": 1.0, "link": "pcie", "network": "pcie"}, "--network is 'pcie', but it must be given together"),
        ({"step_ms": 1.0, "network": "pcie"}, "--network is 'pcie', but it must be left out unless --link is given"),
        ({"bandwidth_gbs": 1.0}, "--bandwidth-gbs is 1.0, but it must be left out unless the time of a step is given"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ConfigurationError) as caught:
        PlanConfig(**{"replicas": 2, **settings})
    assert str(caught.value).startswith(message)


def test_the_time_of_a_step_may_be_given_in_two_ways():
    assert PlanConfig(replicas=2, step_ms=2.5, bandwidth_gbs=10).step_ms == 2.5
    assert str(PlanConfig(replicas=2, measured_run="runs/1").measured_run) == "runs/1"


@pytest.mark.parametrize(
    "settings",
    [
        {"hosts": 2},
        {"step_ms": 1.0, "link": "pcie", "floor_ms": 1.0},
        {"step_ms": 1.0, "link": "pcie", "hosts": 2, "network": "10gbe"},
        {"measured_run": "runs/1", "bandwidth_gbs": 10.0, "latency_ms": 0.1, "floor_ms": 1.0},
    ],
)
def test_what_suits_each_other_is_taken(settings):
    config = PlanConfig(replicas=2, **settings)
    assert {name: str(getattr(config, name)) for name in settings} == {name: str(settings[name]) for name in settings}
