"""Predicts batches, memory and traffic of a shipped model's run before anybody books GPUs: `distrain plan`.

Decides: the formulas of the prediction. Never: loads TensorFlow, or trains.

    plan = plan_run(open_dataset("data"), config, num_replicas=8)
    plan.batches.epoch.num_steps, plan.all_reduce_bytes
"""

from __future__ import annotations

from dataclasses import dataclass

from distrain.config import TrainConfig
from distrain.data.prepared.dataset_index import Dataset
from distrain.data.prepared.shards import Part
from distrain.distribution.collectives.host_all_reduce import MAX_UNION
from distrain.models.weight_count import COPIES, count_weights
from distrain.planning.batch_plan import BatchPlan, plan_batches
from distrain.planning.traffic import expected_touched, sample_frequencies

FLOAT_BYTES = 4
ENTRY_BYTES = {  # of a batch; see `SparseRows` and `WordRows`
    "ngram": 12,  # row id, column and value
    "sequence": 16,  # word, order, segment and touched word, without the padding between rows
}


@dataclass(frozen=True)
class RunPlan:
    """Predicted size of a run.

    Attributes:
        batches: batches of the run, of rows of mean length.
        num_weights: trainable weights of the model.
        model_bytes: bytes of weights, gradients and Adam's two moments, per replica.
        all_reduce_bytes: bytes of all gradients, which a replica all-reduces per step; 0 for one replica.
        num_rows: rows of the first layer's weights, one per n-gram or word.
        touched_rows: expected number of these rows that a global batch uses, estimated from a sample of the data.
        touched_bytes: bytes that a replica all-reduces per step on CPUs of several processes, which send touched rows
            alone.
    """

    batches: BatchPlan
    num_weights: int
    model_bytes: int
    all_reduce_bytes: int
    num_rows: int
    touched_rows: float
    touched_bytes: int


def plan_run(dataset: Dataset, config: TrainConfig, *, num_replicas: int) -> RunPlan:
    """Predict a run of the shipped model for `dataset`.

    Raises:
        ConfigurationError: the replicas cannot divide the batch.
    """
    part = dataset.parts["train"]
    batches = plan_batches(
        part.num_rows,
        dataset.parts["test"].num_rows,
        config,
        num_replicas=num_replicas,
        row_bytes=ENTRY_BYTES[part.kind] * _mean_entries(part),
        window_row_bytes=_stored_row_bytes(part),
    )
    num_weights = count_weights(
        dataset.kind,
        num_features=dataset.num_features,
        num_classes=len(dataset.classes),
        config=config,
        task=dataset.task,
    )
    all_reduce_bytes = FLOAT_BYTES * num_weights if num_replicas > 1 else 0
    global_batch_size = min(batches.epoch.global_batch_size, part.num_rows)
    touched = expected_touched(sample_frequencies(part), global_batch_size, num_rows=part.num_rows)
    return RunPlan(
        batches=batches,
        num_weights=num_weights,
        model_bytes=COPIES * FLOAT_BYTES * num_weights,
        all_reduce_bytes=all_reduce_bytes,
        num_rows=part.num_features,
        touched_rows=touched,
        touched_bytes=_touched_bytes(dataset, config, touched, all_reduce_bytes),
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
