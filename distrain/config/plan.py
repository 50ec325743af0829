"""Settings of `distrain plan`; the settings of the planned run are in `train.py`.

Decides: which predictions are asked for. Never: predicts.

    >>> PlanConfig(replicas=8).audit
    False
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distrain.config.setting import check_settings, require, setting

LINK_NAMES = ("nvlink", "pcie", "rails-8x400g", "100gbe", "10gbe")  # planning/links.py has their figures


@dataclass(frozen=True)
class PlanConfig:
    """Settings of `distrain plan`; `settings_of(PlanConfig)` lists them with their help texts."""

    replicas: int = setting("number of copies of the model", at_least=1, at_most=2**20, metavar="N")
    audit: bool = setting("walk two epochs and prove that each example is read once", default=False)
    step_ms: float | None = setting(
        "measured time of one step in milliseconds: also predict the time of an epoch",
        default=None,
        above=0,
        below=float("inf"),
        metavar="MS",
    )
    measured_run: Path | None = setting(
        "take the time of one step from this run directory", default=None, option="--run", metavar="RUN"
    )
    bandwidth_gbs: float | None = setting(
        "bandwidth of one replica in each direction, in 10^9 bytes per second",
        default=None,
        above=0,
        below=float("inf"),
        metavar="GBS",
    )
    latency_ms: float | None = setting(
        "measured time of an all-reduce of a few bytes in milliseconds, with --bandwidth-gbs",
        default=None,
        at_least=0,
        at_most=1e6,
        metavar="MS",
    )
    link: str | None = setting(
        "what connects the replicas of a host: also predict what fewer and more replicas would give",
        default=None,
        choices=LINK_NAMES,
    )
    hosts: int = setting("hosts over which the replicas are spread evenly", default=1, at_least=1, at_most=2**20)
    network: str | None = setting("what connects the hosts", default=None, choices=LINK_NAMES)
    floor_ms: float | None = setting(
        "part of a step in milliseconds that would remain with an empty batch",
        default=None,
        default_text="2.5",
        at_least=0,
        at_most=1e6,
        metavar="MS",
    )

    def __post_init__(self) -> None:
        check_settings(self)
        has_step = self.step_ms is not None or self.measured_run is not None
        has_link, has_bandwidth = self.link is not None, self.bandwidth_gbs is not None
        is_single = self.step_ms is None or self.measured_run is None
        require(is_single, "--run", self.measured_run, "left out when --step-ms is given")
        rule = "left out unless the time of a step is given: --step-ms, or --run of a run"
        require(has_step or not has_bandwidth, "--bandwidth-gbs", self.bandwidth_gbs, rule)
        require(has_step or not has_link, "--link", self.link, rule)
        require(not (has_link and has_bandwidth), "--link", self.link, "left out when --bandwidth-gbs is given")
        rule = "left out unless --bandwidth-gbs is given"
        require(has_bandwidth or self.latency_ms is None, "--latency-ms", self.latency_ms, rule)
        rule = "left out unless --link or --bandwidth-gbs is given"
        require(has_link or has_bandwidth or self.floor_ms is None, "--floor-ms", self.floor_ms, rule)
        require(self.replicas % self.hosts == 0, "--hosts", self.hosts, f"a divisor of --replicas {self.replicas}")
        rule = "given together with several --hosts, and only then" if has_link else "left out unless --link is given"
        needs_network = has_link and self.hosts > 1
        require((self.network is not None) == needs_network, "--network", self.network, rule)
