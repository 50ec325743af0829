"""Settings of `distrain plan`; the settings of the planned run are in `train.py`.

Decides: which predictions are asked for. Never: predicts.

    >>> PlanConfig(replicas=8).audit
    False
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distrain.config.setting import check_settings, require, setting


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

    def __post_init__(self) -> None:
        check_settings(self)
        both = self.step_ms is not None and self.measured_run is not None
        require(not both, "--run", self.measured_run, "left out when --step-ms is given")
        alone = self.bandwidth_gbs is not None and self.step_ms is None and self.measured_run is None
        rule = "left out unless the time of a step is given: --step-ms, or --run of a run"
        require(not alone, "--bandwidth-gbs", self.bandwidth_gbs, rule)
