"""Predicts the duration of a planned run from a measured step and a bandwidth.

Decides: how to derive a step time from a run directory, and the cost of communication. Never: measures anything.

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
    """Predicted duration of a run whose communication does not overlap computation.

    Attributes:
        step_seconds: measured computation per step.
        all_reduce_seconds: transfer of the gradients per step, from the bandwidth alone; None without a bandwidth.
        epoch_seconds: training of one epoch, without evaluation.
        samples_per_second: examples per second over all replicas.
    """

    step_seconds: float
    all_reduce_seconds: float | None
    epoch_seconds: float
    samples_per_second: float

    @property
    def efficiency(self) -> float:
        """Fraction of a step that is computation, 0 .. 1."""
        return self.step_seconds / (self.step_seconds + (self.all_reduce_seconds or 0.0))


def plan_time(plan: RunPlan, *, step_seconds: float, bytes_per_second: float | None = None) -> TimePlan:
    """Predict the duration of an epoch.

    Args:
        plan: predicted size of the run.
        step_seconds: duration of a step of one replica at the plan's batch size, without communication.
        bytes_per_second: bandwidth of a replica in each direction; None leaves communication out.

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


def measured_step_seconds(run: Path, *, batch_size: int, without_communication: bool) -> float:
    """Mean duration of a step of a finished run, without the first step.

    Args:
        run: the run directory.
        batch_size: examples per replica and step of the plan, which the run must have used too.
        without_communication: True refuses a run on several replicas, because its steps include communication.

    Raises:
        CheckpointError: `run` is not a run directory, or the run did not record its speed.
        ConfigurationError: the run used another batch size, or several replicas despite `without_communication`.
    """
    found = load_run(run)
    settings = {"accumulation_steps": 1, **found.settings}
    measured, replicas, microbatches = (
        settings.get(name) for name in ("replica_batch_size", "num_replicas", "accumulation_steps")
    )
    rate = found.result("samples_per_second")
    if not (
        isinstance(measured, int) and isinstance(replicas, int) and isinstance(microbatches, int) and rate and rate > 0
    ):
        raise CheckpointError(f"{run} does not record its samples per second and batch; name a run that has ended.")
    if measured != batch_size:
        raise ConfigurationError(
            f"{run} was measured at {measured:,} examples per replica and step, but this plan has {batch_size:,}. "
            f"Give --batch-size {measured}, or the step time itself as --step-ms."
        )
    if without_communication and replicas > 1:
        raise ConfigurationError(
            f"{run} was measured on {replicas:,} replicas, so its steps include communication already. Leave out "
            "--bandwidth-gbs, or name a run on one replica."
        )
    return measured * replicas * microbatches / rate
