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
        both = self.step_ms is not None and self.measured_run is not None
        require(not both, "--run", self.measured_run, "left out when --step-ms is given")
        alone = self.bandwidth_gbs is not None and self.step_ms is None and self.measured_run is None
        rule = "left out unless the time of a step is given: --step-ms, or --run of a run"
        require(not alone, "--bandwidth-gbs", self.bandwidth_gbs, rule)
        without_step = self.step_ms is None and self.measured_run is None
        require(self.link is None or not without_step, "--link", self.link, rule)
        both = self.link is not None and self.bandwidth_gbs is not None
        require(not both, "--link", self.link, "left out when --bandwidth-gbs is given")
        alone = self.latency_ms is not None and self.bandwidth_gbs is None
        require(not alone, "--latency-ms", self.latency_ms, "left out unless --bandwidth-gbs is given")
        alone = self.floor_ms is not None and self.link is None and self.bandwidth_gbs is None
        require(not alone, "--floor-ms", self.floor_ms, "left out unless --link or --bandwidth-gbs is given")
        require(self.replicas % self.hosts == 0, "--hosts", self.hosts, f"a divisor of --replicas {self.replicas}")
        if self.link is not None:
            same = (self.network is not None) == (self.hosts > 1)
            require(same, "--network", self.network, "given together with several --hosts, and only then")
        else:
            require(self.network is None, "--network", self.network, "left out unless --link is given")
