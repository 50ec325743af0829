"""Predicts steps, examples, memory and traffic of a run before anybody books GPUs: `distrain plan`.

Decides: the formulas of the prediction. Never: loads TensorFlow, or trains.

    plan = plan_run(open_dataset("data"), config, num_replicas=8)
    plan.num_steps, plan.all_reduce_bytes
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from distrain.config import DEFAULT_GLOBAL_BATCH_SIZE, TrainConfig
from distrain.data.dataset_index import Dataset
from distrain.data.plan import EpochPlan, examples_per_replica
from distrain.data.prefetch import prefetch_depth
from distrain.data.shards import Part
from distrain.data.shuffle import SHUFFLE_WINDOW
from distrain.distribution.collectives.host_all_reduce import MAX_UNION
from distrain.models.weight_count import COPIES, count_weights
from distrain.planning.traffic import expected_touched, sample_frequencies

FLOAT_BYTES = 4
ENTRY_BYTES = {  # of a batch; see `SparseRows` and `WordRows`
    "ngram": 12,  # row id, column and value
    "sequence": 16,  # word, order, segment and touched word, without the padding between rows
}


@dataclass(frozen=True)
class RunPlan:
    """Predicted size of a run on `num_replicas` replicas.

    Attributes:
        num_replicas: copies of the model, N.
        batch_size: examples per replica and step, B.
        num_examples: training examples.
        num_steps: steps per epoch.
        num_batches: batches per epoch, over all replicas.
        last_step_examples: examples of each replica in the last step, `[num_replicas]`.
        examples_per_replica: examples of each replica per epoch, `[num_replicas]`.
        num_validation_examples: test examples.
        num_validation_steps: steps per evaluation.
        num_weights: trainable weights of the model.
        model_bytes: bytes of weights, gradients and Adam's two moments, per replica.
        batch_bytes: bytes of one replica's batch at the mean row length.
        host_bytes: bytes of a shuffle window's rows and of prefetched batches, per process with one replica.
        all_reduce_bytes: bytes of all gradients, which a replica all-reduces per step; 0 for one replica.
        num_rows: rows of the first layer's weights, one per n-gram or word.
        touched_rows: expected number of these rows that a global batch uses, estimated from a sample of the data.
        touched_bytes: bytes that a replica all-reduces per step on CPUs of several processes, which send touched rows
            alone.
        warnings: sentences about settings that do not fit the data.
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
    num_rows: int
    touched_rows: float
    touched_bytes: int
    warnings: tuple[str, ...]


def batches_of(num_examples: int, config: TrainConfig, *, num_replicas: int) -> tuple[int, list[str]]:
    """Return the examples per replica and step, and sentences about settings that do not fit the data.

    Raises:
        ConfigurationError: the replicas cannot divide the batch.
    """
    warnings = []
    if config.batch_size is None and config.global_batch_size is None and num_replicas > DEFAULT_GLOBAL_BATCH_SIZE:
        warnings.append(
            f"The default --global-batch-size, {DEFAULT_GLOBAL_BATCH_SIZE}, gives {num_replicas:,} replicas less "
            f"than one example each: 'distrain train' refuses it. This is the plan for --batch-size "
            f"{DEFAULT_GLOBAL_BATCH_SIZE}."
        )
        config = replace(config, batch_size=DEFAULT_GLOBAL_BATCH_SIZE)
    batch_size = config.replica_batch_size(num_replicas)
    plan = EpochPlan(num_examples, num_replicas, batch_size)
    if plan.num_batches < num_replicas:
        warnings.append(
            f"{num_examples:,} training examples make {plan.num_batches:,} batches of {batch_size:,}: "
            f"{num_replicas - plan.num_batches:,} of {num_replicas:,} replicas have nothing to do. Use fewer replicas "
            "or a smaller batch."
        )
    return batch_size, warnings


def plan_run(dataset: Dataset, config: TrainConfig, *, num_replicas: int) -> RunPlan:
    """Predict a run of the shipped model for `dataset`.

    Raises:
        ConfigurationError: the replicas cannot divide the batch.
    """
    part = dataset.parts["train"]
    batch_size, warnings = batches_of(part.num_rows, config, num_replicas=num_replicas)
    plan = EpochPlan(part.num_rows, num_replicas, batch_size)
    validation = EpochPlan(dataset.parts["test"].num_rows, num_replicas, batch_size)
    num_weights = count_weights(
        dataset.kind,
        num_features=dataset.num_features,
        num_classes=len(dataset.classes),
        config=config,
        task=dataset.task,
    )
    window_bytes = min(SHUFFLE_WINDOW, part.num_rows) * _stored_row_bytes(part) / num_replicas
    batch_bytes = int(batch_size * ENTRY_BYTES[part.kind] * _mean_entries(part))
    last_step = plan.num_steps - 1
    all_reduce_bytes = FLOAT_BYTES * num_weights if num_replicas > 1 else 0
    global_batch_size = min(plan.global_batch_size, part.num_rows)
    touched = expected_touched(sample_frequencies(part), global_batch_size, num_rows=part.num_rows)
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
        model_bytes=COPIES * FLOAT_BYTES * num_weights,
        batch_bytes=batch_bytes,
        host_bytes=int(window_bytes + (prefetch_depth(batch_bytes) + 2) * batch_bytes),
        all_reduce_bytes=all_reduce_bytes,
        num_rows=part.num_features,
        touched_rows=touched,
        touched_bytes=_touched_bytes(dataset, config, touched, all_reduce_bytes),
        warnings=tuple(warnings),
    )


def _touched_bytes(dataset: Dataset, config: TrainConfig, touched: float, all_reduce_bytes: int) -> int:
    """Bytes of the touched rows, of a mask with one byte per row, and of all other weights, as sent between CPUs."""
    if not all_reduce_bytes:
        return 0
    mask_bytes = dataset.num_features
    if touched >= MAX_UNION * dataset.num_features:  # then all rows are sent
        return all_reduce_bytes + mask_bytes
    width = config.units if dataset.kind == "ngram" else config.embedding
    return all_reduce_bytes + mask_bytes - int(FLOAT_BYTES * width * (dataset.num_features - touched))


def _stored_row_bytes(part: Part) -> float:
    return (8 if part.kind == "ngram" else 4) * _mean_entries(part) + 12


def _mean_entries(part: Part) -> float:
    entry_bytes = sum(shard.files["columns"].bytes for shard in part.shards)
    return entry_bytes / 4 / max(1, part.num_rows)
