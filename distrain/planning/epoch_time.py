"""Predicts the duration of an epoch of a planned run from a measured step.

Decides: how a measured step becomes an epoch, and which step of a run directory counts. Never: measures anything.

    time = plan_time(epoch, step_seconds=0.0031, all_reduce_seconds=0.0004)
    time.epoch_seconds
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distrain.data.plan import EpochPlan
from distrain.errors import CheckpointError, ConfigurationError
from distrain.reporting.run_history import load_run


@dataclass(frozen=True)
class TimePlan:
    """Predicted duration of a run.

    Attributes:
        step_seconds: computation per step.
        all_reduce_seconds: time per step in which replicas wait for the sum of gradients; None if not predicted.
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


def plan_time(epoch: EpochPlan, *, step_seconds: float, all_reduce_seconds: float | None = None) -> TimePlan:
    """Predict the duration of an epoch.

    Args:
        epoch: the plan of an epoch.
        step_seconds: duration of a step of one replica at the epoch's batch size, without communication.
        all_reduce_seconds: time per step in which replicas wait for the sum of gradients; None leaves it out.

    Raises:
        ConfigurationError: the time of a step is not positive.
    """
    if not 0 < step_seconds < float("inf"):
        raise ConfigurationError("--step-ms must be above 0 and finite.")
    epoch_seconds = epoch.num_steps * (step_seconds + (all_reduce_seconds or 0.0))
    return TimePlan(step_seconds, all_reduce_seconds, epoch_seconds, epoch.num_examples / epoch_seconds)


def measured_step_seconds(run: Path, *, batch_size: int | None, without_communication: bool) -> tuple[float, int]:
    """Return the mean duration of a step of a finished run, without the first step, and its examples per replica.

    Args:
        run: the run directory.
        batch_size: examples per replica and step, which the run must have used; None takes any.
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
    if batch_size is not None and measured != batch_size:
        raise ConfigurationError(
            f"{run} was measured at {measured:,} examples per replica and step, but this plan has {batch_size:,}. "
            f"Give --batch-size {measured}, the step time itself as --step-ms, or --link."
        )
    if without_communication and replicas > 1:
        raise ConfigurationError(
            f"{run} was measured on {replicas:,} replicas, so its steps include communication already. Leave out "
            "--bandwidth-gbs and --link, or name a run on one replica."
        )
    return measured * replicas * microbatches / rate, measured
