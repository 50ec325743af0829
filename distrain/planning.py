"""What a run will take, worked out before GPUs are booked: `distrain plan`.

Decides: how steps, examples, memory and traffic are estimated. Never: loads TensorFlow or trains.

    facts = plan_run(open_dataset("data"), num_replicas=8, config=config)
    facts["steps per epoch"]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distrain.config import TrainConfig
from distrain.data.batches import PREFETCH_STEPS
from distrain.data.plan import SHUFFLE_BLOCK, EpochPlan, count_reads, epoch_order, examples_per_replica
from distrain.data.shards import Dataset, Part
from distrain.errors import DataError

FLOAT_BYTES = 4
ENTRY_BYTES = 24  # a sparse entry in a batch: row, column, value, order, segment, and the column if it is new


@dataclass(frozen=True)
class RunPlan:
    """What a run takes on `num_replicas` replicas.

    Attributes:
        num_replicas: copies of the model, N.
        batch_size: examples per replica and step, B.
        num_examples: training examples.
        num_steps: steps per epoch.
        num_batches: batches per epoch, over all replicas.
        last_step_examples: examples of each replica in the last step.
        examples_per_replica: examples of each replica per epoch.
        num_validation_examples: test examples.
        num_validation_steps: steps that an evaluation takes.
        num_weights: trainable weights of the model.
        model_bytes: weights, gradients and Adam's two moments, per replica.
        batch_bytes: one replica's batch, at the mean row length.
        host_bytes: shuffle block and prefetched batches, per process of one replica.
        all_reduce_bytes: gradients that each replica sums with the others per step.
    """

    num_replicas: int
    batch_size: int
    num_examples: int
    num_steps: int
    num_batches: int
    last_step_examples: tuple[int, ...]
    examples_per_replica: tuple[int, ...]
    num_validation_examples: int
    num_validation_steps: int
    num_weights: int
    model_bytes: int
    batch_bytes: int
    host_bytes: int
    all_reduce_bytes: int


def plan_run(dataset: Dataset, config: TrainConfig, *, num_replicas: int) -> RunPlan:
    """Work out what a run of the shipped model for this data takes.

    Raises:
        ConfigurationError: the batch does not divide among the replicas.
    """
    part = dataset.parts["train"]
    batch_size = config.replica_batch_size(num_replicas)
    plan = EpochPlan(part.num_rows, num_replicas, batch_size)
    validation = EpochPlan(dataset.parts["test"].num_rows, num_replicas, batch_size)
    num_weights = count_weights(dataset, config)
    row_bytes = _row_bytes(dataset, part)
    block_bytes = min(SHUFFLE_BLOCK, part.num_rows) * _stored_row_bytes(part)
    batch_bytes = int(batch_size * row_bytes)
    last_step = plan.num_steps - 1
    return RunPlan(
        num_replicas=num_replicas,
        batch_size=batch_size,
        num_examples=part.num_rows,
        num_steps=plan.num_steps,
        num_batches=plan.num_batches,
        last_step_examples=tuple(len(plan.positions(last_step, replica)) for replica in range(num_replicas)),
        examples_per_replica=tuple(examples_per_replica(plan)),
        num_validation_examples=validation.num_examples,
        num_validation_steps=validation.num_steps,
        num_weights=num_weights,
        model_bytes=4 * FLOAT_BYTES * num_weights,
        batch_bytes=batch_bytes,
        host_bytes=int(block_bytes + (PREFETCH_STEPS + 2) * batch_bytes),
        all_reduce_bytes=FLOAT_BYTES * num_weights if num_replicas > 1 else 0,
    )


def audit(plan: RunPlan, *, seed: int, epoch: int) -> None:
    """Walk every step of every replica in one epoch and count how often each example is read.

    Raises:
        DataError: an example is not read exactly once, which would be a defect of distrain.
    """
    walked = EpochPlan(plan.num_examples, plan.num_replicas, plan.batch_size)
    counts = count_reads(walked, epoch_order(plan.num_examples, seed=seed, epoch=epoch))
    wrong = np.flatnonzero(counts != 1)
    if len(wrong):
        raise DataError(
            f"In epoch {epoch + 1} example {wrong[0]} is read {counts[wrong[0]]} times, and {len(wrong) - 1} others "
            "not exactly once. Please report this with the command."
        )


def count_weights(dataset: Dataset, config: TrainConfig) -> int:
    """Trainable weights of the shipped model for this data, from the shapes of its layers."""
    num_classes = len(dataset.classes)
    outputs = 1 if num_classes == 2 else num_classes
    if dataset.kind == "ngram":
        return (dataset.num_features + 1) * config.units + (config.units + 1) * outputs
    weights = dataset.num_features * config.embedding
    width = config.embedding
    for block in range(config.blocks):
        filters = config.filters if block < config.blocks - 1 else 2 * config.filters
        for inputs in (width, filters):  # depthwise kernel of 3, pointwise kernel, bias
            weights += 3 * inputs + inputs * filters + filters
        width = filters
    return weights + (width + 1) * outputs


def _row_bytes(dataset: Dataset, part: Part) -> float:
    if dataset.kind == "sequence":
        return FLOAT_BYTES * (dataset.max_length or 1)
    return ENTRY_BYTES * _mean_entries(part)


def _stored_row_bytes(part: Part) -> float:
    return (8 if part.kind == "ngram" else 4) * _mean_entries(part) + 12


def _mean_entries(part: Part) -> float:
    entry_bytes = sum(shard.files["columns"].bytes for shard in part.shards)
    return entry_bytes / 4 / max(1, part.num_rows)
