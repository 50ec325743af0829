"""How many steps a run takes, and which values of its length a resumed run must keep.

Decides: the plan of an epoch, the steps that a schedule of the learning rate counts, and warnings. Never: trains.

    plan = epoch_plan(config, num_replicas=4, num_examples=120_000)
    total_steps(config, num_replicas=4, num_examples=120_000)
"""

from __future__ import annotations

import logging
from typing import Any

from distrain.config import TrainConfig
from distrain.data.plan import EpochPlan

_LOG = logging.getLogger(__name__)


def epoch_plan(config: TrainConfig, num_replicas: int, num_examples: int, position: int = 0) -> EpochPlan:
    """Return the plan of a training epoch from `position`, in examples."""
    batch_size, num_microbatches = config.replica_batch_size(num_replicas), num_replicas * config.accumulation_steps
    num_planned = limited_examples(config, num_examples, num_microbatches * batch_size)
    return EpochPlan(num_planned, num_microbatches, batch_size, position)


def limited_examples(config: TrainConfig, num_examples: int, global_batch_size: int) -> int:
    """Return how many of the examples a pass reads: all, unless `--limit-batches` asks for a dry run."""
    return min(num_examples, (config.limit_batches or num_examples) * global_batch_size)


def total_steps(config: TrainConfig, num_replicas: int, num_examples: int) -> int:
    """Return the optimizer steps of a run that ends at its last epoch or at `--max-steps`."""
    steps = config.epochs * epoch_plan(config, num_replicas, num_examples).num_steps
    return min(steps, config.max_steps or steps)


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


def warn_of_warmup(config: TrainConfig, num_examples: int, num_replicas: int) -> None:
    """Warn if the run ends within the warm-up; a falling schedule refuses this."""
    num_steps = total_steps(config, num_replicas, num_examples)
    if config.schedule == "constant" and config.warmup_steps >= num_steps:
        _LOG.warning(
            f"--warmup-steps is {config.warmup_steps}, but the run has {num_steps} steps: the learning rate never "
            "reaches its full value. Give fewer warm-up steps, or train for longer."
        )


def warn_of_batches(config: TrainConfig, num_examples: int, num_replicas: int) -> None:
    """Warn if the global batch size is not the size asked for, or if some microbatches of a step stay empty."""
    wanted = config.wanted_global_batch_size
    batch_size = config.replica_batch_size(num_replicas)
    num_microbatches = num_replicas * config.accumulation_steps
    sizes, divisor = f"{num_replicas} x {batch_size}", f"{num_replicas} replicas"
    if config.accumulation_steps > 1:
        sizes, divisor = f"{sizes} x {config.accumulation_steps}", f"{divisor} x {config.accumulation_steps} batches"
    if wanted is not None and batch_size * num_microbatches != wanted:
        _LOG.warning(
            f"--global-batch-size {wanted} does not divide by {divisor}; using the "
            f"nearest, {sizes} = {num_microbatches * batch_size}. The model differs a little from "
            "one trained with the size asked for."
        )
    num_batches = EpochPlan(num_examples, num_microbatches, batch_size).num_batches
    if num_batches < num_microbatches:
        _LOG.warning(
            f"{num_examples} training examples make {num_batches} batches of {batch_size}, fewer than the "
            f"{divisor}: some have nothing to do. Use fewer replicas or a smaller batch."
        )
