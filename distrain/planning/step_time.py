"""How long a planned run takes, from a measured step and a bandwidth.

Decides: how a step's time is found in a run, and what communication adds to it. Never: measures anything.

    time = plan_time(plan, step_seconds=0.0031, bytes_per_second=12e9)
    time.epoch_seconds
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distrain.errors import CheckpointError, ConfigurationError
from distrain.planning.run_plan import RunPlan
from distrain.planning.traffic import ring_seconds
from distrain.reporting.run_history import load_run


@dataclass(frozen=True)
class TimePlan:
    """How long a run takes, communication not hidden behind computation.

    Attributes:
        step_seconds: computing one step, as measured.
        all_reduce_seconds: the gradients' way between the replicas per step, by bandwidth alone; None without one.
        epoch_seconds: training one epoch, without evaluation.
        samples_per_second: over all replicas.
    """

    step_seconds: float
    all_reduce_seconds: float | None
    epoch_seconds: float
    samples_per_second: float

    @property
    def efficiency(self) -> float:
        """The share of a step that is computation: 1 where nothing has to travel."""
        return self.step_seconds / (self.step_seconds + (self.all_reduce_seconds or 0.0))


def plan_time(plan: RunPlan, *, step_seconds: float, bytes_per_second: float | None = None) -> TimePlan:
    """Work out how long an epoch takes.

    Args:
        plan: what is trained on how many replicas.
        step_seconds: a step of one replica at the plan's batch, without communication.
        bytes_per_second: bandwidth of a replica in each direction; without it communication takes no time.

    Raises:
        ConfigurationError: a time or a bandwidth is not positive.
    """
    for name, value in (("--step-ms", step_seconds), ("--bandwidth-gbs", bytes_per_second)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigurationError(f"{name} must be above 0 and finite.")
    all_reduce = None
    if bytes_per_second is not None:
        all_reduce = ring_seconds(plan.touched_bytes, num_replicas=plan.num_replicas, bytes_per_second=bytes_per_second)
    epoch_seconds = plan.num_steps * (step_seconds + (all_reduce or 0.0))
    return TimePlan(step_seconds, all_reduce, epoch_seconds, plan.num_examples / epoch_seconds)


def measured_step_seconds(run: Path, *, batch_size: int, alone: bool) -> float:
    """The mean time of a step of a run, its first apart, from the run's directory.

    Args:
        run: the run directory.
        batch_size: examples per replica and step of the plan; the run's must be the same.
        alone: whether communication comes on top: only a run on one replica measured its steps without.

    Raises:
        CheckpointError: it is no run directory, or the run has not measured its speed.
        ConfigurationError: the run had another batch, or several replicas where it must not.
    """
    found = load_run(run)
    settings = {"accumulation_steps": 1, **found.settings}
    measured, replicas, shares = (
        settings.get(name) for name in ("replica_batch_size", "num_replicas", "accumulation_steps")
    )
    rate = found.figure("samples_per_second")
    if not (isinstance(measured, int) and isinstance(replicas, int) and isinstance(shares, int) and rate and rate > 0):
        raise CheckpointError(f"{run} does not tell its samples per second and batch; name a run that has ended.")
    if measured != batch_size:
        raise ConfigurationError(
            f"{run} was measured at {measured:,} examples per replica and step, but this plan has {batch_size:,}. "
            f"Give --batch-size {measured}, or the step time itself as --step-ms."
        )
    if alone and replicas > 1:
        raise ConfigurationError(
            f"{run} was measured on {replicas:,} replicas, so that its steps hold their communication already. Leave "
            "out --bandwidth-gbs, or name a run on one replica."
        )
    return measured * replicas * shares / rate
