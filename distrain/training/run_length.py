"""How many steps a run takes, and what of this a resumed run must keep.

Decides: the plan of an epoch, and the steps that a schedule of the learning rate counts. Never: trains.

    plan = epoch_plan(config, num_replicas=4, num_examples=120_000)
    total_steps(config, num_replicas=4, num_examples=120_000)
"""

from __future__ import annotations

from typing import Any

from distrain.config import TrainConfig
from distrain.data.plan import EpochPlan


def epoch_plan(config: TrainConfig, num_replicas: int, num_examples: int, position: int = 0) -> EpochPlan:
    """Return the plan of a training epoch from `position`, in examples."""
    batch_size = config.replica_batch_size(num_replicas)
    return EpochPlan(num_examples, num_replicas * config.accumulation_steps, batch_size, position)


def total_steps(config: TrainConfig, num_replicas: int, num_examples: int) -> int:
    """Return the optimizer steps of a run that nothing ends early."""
    return config.epochs * epoch_plan(config, num_replicas, num_examples).num_steps


def schedule_values(config: TrainConfig, num_replicas: int, num_examples: int) -> dict[str, Any]:
    """Return the values behind the learning rate that a resumed run must keep, for `config.json`.

    A value is None where the settings do not use it.
    """
    from distrain.models.optimizers import learning_rate_factor

    falls, is_scaled = config.schedule != "constant", config.scale_learning_rate != "none"
    return {
        "scheduled_steps": total_steps(config, num_replicas, num_examples) if falls else None,
        "learning_rate_factor": learning_rate_factor(config, num_replicas) if is_scaled else None,
    }
