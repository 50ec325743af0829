"""Predicts the batches of a run and the host memory for its data, whatever the model: `distrain plan`.

Decides: the formulas of this prediction. Never: reads data.

    plan = plan_batches(51_000, 4_000, config, num_replicas=8, row_bytes=480.0, window_row_bytes=332.0)
    plan.epoch.num_steps, plan.host_bytes
"""

from __future__ import annotations

from dataclasses import dataclass

from distrain.config import DEFAULT_GLOBAL_BATCH_SIZE, TrainConfig
from distrain.data.plan import EpochPlan
from distrain.data.prefetch import prefetch_depth
from distrain.data.shuffle import SHUFFLE_WINDOW


@dataclass(frozen=True)
class BatchPlan:
    """Predicted batches of a run.

    Attributes:
        epoch: the plan of an epoch.
        validation: the plan of an evaluation; of no examples without validation data.
        batch_bytes: bytes of one replica's batch.
        host_bytes: bytes of a shuffle window's rows and of prefetched batches, per process with one replica.
        warnings: sentences about settings that do not fit the data.
    """

    epoch: EpochPlan
    validation: EpochPlan
    batch_bytes: int
    host_bytes: int
    warnings: tuple[str, ...]

    @property
    def last_step_examples(self) -> tuple[int, ...]:
        """Examples of each replica in the last step of an epoch, `[num_replicas]`."""
        last = self.epoch.num_steps - 1
        return tuple(len(self.epoch.positions(last, replica)) for replica in range(self.epoch.num_replicas))


def plan_batches(
    num_examples: int,
    num_validation_examples: int,
    config: TrainConfig,
    *,
    num_replicas: int,
    row_bytes: float,
    window_row_bytes: float,
    window_size: int = SHUFFLE_WINDOW,
) -> BatchPlan:
    """Predict the batches of a run.

    Args:
        num_examples: training examples.
        num_validation_examples: validation examples; 0 without any.
        config: settings of the run.
        num_replicas: copies of the model.
        row_bytes: bytes of an example in a batch.
        window_row_bytes: bytes of an example in a shuffle window.
        window_size: examples of a shuffle window.

    Raises:
        ConfigurationError: the replicas cannot divide the batch.
    """
    warnings = []
    batch_size = planned_batch_size(config, num_replicas)
    if _is_default_too_small(config, num_replicas):
        warnings.append(
            f"The default --global-batch-size, {DEFAULT_GLOBAL_BATCH_SIZE}, gives {num_replicas:,} replicas less "
            f"than one example each: 'distrain train' refuses it. This is the plan for --batch-size {batch_size}."
        )
    epoch = EpochPlan(num_examples, num_replicas, batch_size)
    if epoch.num_batches < num_replicas:
        warnings.append(
            f"{num_examples:,} training examples make {epoch.num_batches:,} batches of {batch_size:,}: "
            f"{num_replicas - epoch.num_batches:,} of {num_replicas:,} replicas have nothing to do. Use fewer replicas "
            "or a smaller batch."
        )
    batch_bytes = int(batch_size * row_bytes)
    window_bytes = min(window_size, num_examples) * window_row_bytes / num_replicas
    return BatchPlan(
        epoch=epoch,
        validation=EpochPlan(num_validation_examples, num_replicas, batch_size),
        batch_bytes=batch_bytes,
        host_bytes=int(window_bytes + (prefetch_depth(batch_bytes) + 2) * batch_bytes),
        warnings=tuple(warnings),
    )


def planned_batch_size(config: TrainConfig, num_replicas: int) -> int:
    """Return the examples per replica and step; if the default global batch is too small, each replica takes it whole.

    Raises:
        ConfigurationError: the replicas cannot divide the batch.
    """
    if _is_default_too_small(config, num_replicas):
        return DEFAULT_GLOBAL_BATCH_SIZE
    return config.replica_batch_size(num_replicas)


def _is_default_too_small(config: TrainConfig, num_replicas: int) -> bool:
    is_default = config.batch_size is None and config.global_batch_size is None
    return is_default and num_replicas > DEFAULT_GLOBAL_BATCH_SIZE
