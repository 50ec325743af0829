"""Predicts batches and memory of a run on arrays or a source, whose model is the user's own: `distrain plan`.

Decides: how large an example is, and how the table looks. Never: loads TensorFlow, or builds a model.

    plan = plan_data(train, validation, config, num_replicas=8)
    console.print(data_table("shop:data", plan))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from distrain.config import TrainConfig
from distrain.data.batches import sample_batch
from distrain.data.examples import Examples
from distrain.data.nests import leaves
from distrain.planning.batch_plan import BatchPlan, plan_batches
from distrain.planning.epoch_time import plan_time
from distrain.planning.table import add_batches, add_epoch_time, format_bytes, new_table


@dataclass(frozen=True)
class ModelSize:
    """Sizes of a built model.

    Attributes:
        num_weights: weights, trainable or not.
        weight_bytes: bytes of the weights.
        gradient_bytes: bytes of the gradients.
        optimizer_bytes: bytes of the optimizer's variables.
    """

    num_weights: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int

    @property
    def model_bytes(self) -> int:
        """Bytes of a replica of the model: weights, gradients and the optimizer's variables."""
        return self.weight_bytes + self.gradient_bytes + self.optimizer_bytes


def plan_data(train: Examples, validation: Examples | None, config: TrainConfig, *, num_replicas: int) -> BatchPlan:
    """Predict a run on some examples, each as large as the first ones.

    Raises:
        ConfigurationError: the replicas cannot divide the batch.
    """
    row_bytes = _row_bytes(train)
    return plan_batches(
        train.num_examples,
        validation.num_examples if validation else 0,
        config,
        num_replicas=num_replicas,
        row_bytes=row_bytes,
        window_row_bytes=row_bytes,
        window_size=train.window_size,
    )


def _row_bytes(examples: Examples) -> float:
    sample = sample_batch(examples)
    nests: tuple[Any, ...] = (sample.features, sample.labels, sample.weights)
    found = [np.asarray(value) for nest in nests for _, value in leaves(nest)]
    return sum(array.nbytes for array in found) / max(1, int(sample.num_rows))


def data_table(name: str, plan: BatchPlan, model: ModelSize | None = None, step_seconds: float | None = None) -> Table:
    """The plan as a table of two columns.

    Args:
        name: the data.
        plan: the prediction.
        model: sizes of the model, if the command names one.
        step_seconds: duration of a step, if the command gives one.
    """
    table = new_table(name, plan)
    add_batches(table, plan)
    if model is None:
        table.add_row("weights", "those of your model: name it with --model")
    else:
        table.add_row("weights", f"{model.num_weights:,}")
        table.add_row("model, gradients, optimizer, per replica", format_bytes(model.model_bytes))
        num_bytes = model.gradient_bytes if plan.epoch.num_replicas > 1 else 0
        table.add_row("all-reduced per step and replica", format_bytes(num_bytes))
    table.add_row("batch, per replica", format_bytes(plan.batch_bytes))
    table.add_row("host memory for data, per process, at most", format_bytes(plan.host_bytes))
    if step_seconds is not None:
        table.add_section()
        add_epoch_time(table, plan_time(plan.epoch, step_seconds=step_seconds))
    return table
