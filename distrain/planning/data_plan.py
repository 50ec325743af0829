"""Predicts steps, examples and memory of a run on arrays or a source, whose model is the user's own: `distrain plan`.

Decides: the formulas of this prediction, and how its table looks. Never: loads TensorFlow, or builds a model.

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
from distrain.data.plan import EpochPlan, examples_per_replica
from distrain.data.prefetch import prefetch_depth
from distrain.planning.run_plan import batches_of
from distrain.planning.table import duration, size, spread


@dataclass(frozen=True)
class ModelSize:
    """Sizes of a built model.

    Attributes:
        num_weights: weights, trainable or not.
        model_bytes: bytes of weights, gradients and the variables of the optimizer.
        gradient_bytes: bytes of the gradients.
    """

    num_weights: int
    model_bytes: int
    gradient_bytes: int


@dataclass(frozen=True)
class DataPlan:
    """Predicted size of a run on `num_replicas` replicas.

    Attributes:
        num_replicas: copies of the model, N.
        batch_size: examples per replica and step, B.
        num_examples: training examples.
        epoch: the plan of an epoch.
        num_validation_examples: validation examples; 0 without a validation part.
        num_validation_steps: steps per evaluation.
        batch_bytes: bytes of one replica's batch, as the first examples are.
        host_bytes: most bytes of a shuffle window's rows and of prefetched batches, per process with one replica.
        warnings: sentences about settings that do not fit the data.
    """

    num_replicas: int
    batch_size: int
    num_examples: int
    epoch: EpochPlan
    num_validation_examples: int
    num_validation_steps: int
    batch_bytes: int
    host_bytes: int
    warnings: tuple[str, ...]


def plan_data(train: Examples, validation: Examples | None, config: TrainConfig, *, num_replicas: int) -> DataPlan:
    """Predict a run on some examples.

    Raises:
        ConfigurationError: the replicas cannot divide the batch.
    """
    batch_size, warnings = batches_of(train.num_examples, config, num_replicas=num_replicas)
    row_bytes = _row_bytes(train)
    batch_bytes = int(batch_size * row_bytes)
    window_bytes = min(train.window_size, train.num_examples) * row_bytes / num_replicas
    count = validation.num_examples if validation else 0
    return DataPlan(
        num_replicas=num_replicas,
        batch_size=batch_size,
        num_examples=train.num_examples,
        epoch=EpochPlan(train.num_examples, num_replicas, batch_size),
        num_validation_examples=count,
        num_validation_steps=EpochPlan(count, num_replicas, batch_size).num_steps if count else 0,
        batch_bytes=batch_bytes,
        host_bytes=int(window_bytes + (prefetch_depth(batch_bytes) + 2) * batch_bytes),
        warnings=tuple(warnings),
    )


def _row_bytes(examples: Examples) -> float:
    sample = sample_batch(examples)
    nests: tuple[Any, ...] = (sample.features, sample.labels, sample.weights)
    found = [np.asarray(value) for nest in nests for _, value in leaves(nest)]
    return sum(array.nbytes for array in found) / max(1, int(sample.num_rows))


def data_table(name: str, plan: DataPlan, model: ModelSize | None = None, step_seconds: float | None = None) -> Table:
    """The plan as a table of two columns.

    Args:
        name: the data.
        plan: the prediction.
        model: sizes of the model, if the command names one.
        step_seconds: duration of a step, if the command gives one.
    """
    epoch, replicas = plan.epoch, plan.num_replicas
    title = f"{name}: {'1 replica' if replicas == 1 else f'{replicas:,} replicas'}"
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(justify="left", style="bold")
    table.add_column(justify="right")
    table.add_row("training examples", f"{plan.num_examples:,}")
    table.add_row("batch per replica", f"{plan.batch_size:,}")
    table.add_row("global batch", f"{epoch.global_batch_size:,}")
    table.add_row("batches per epoch", f"{epoch.num_batches:,}")
    table.add_row("steps per epoch", f"{epoch.num_steps:,}")
    table.add_row("examples per replica and epoch", spread(examples_per_replica(epoch)))
    last = [len(epoch.positions(epoch.num_steps - 1, replica)) for replica in range(replicas)]
    table.add_row("examples per replica, last step", spread(last))
    table.add_section()
    table.add_row("validation examples", f"{plan.num_validation_examples:,}")
    table.add_row("validation steps", f"{plan.num_validation_steps:,}")
    table.add_section()
    if model is None:
        table.add_row("weights", "those of your model: name it with --model")
    else:
        table.add_row("weights", f"{model.num_weights:,}")
        table.add_row("model, gradients, optimizer, per replica", size(model.model_bytes))
        table.add_row("all-reduced per step and replica", size(model.gradient_bytes if replicas > 1 else 0))
    table.add_row("batch, per replica", size(plan.batch_bytes))
    table.add_row("host memory for data, per process, at most", size(plan.host_bytes))
    if step_seconds is not None:
        table.add_section()
        seconds = epoch.num_steps * step_seconds
        table.add_row("samples per second, all replicas", f"{plan.num_examples / seconds:,.0f}")
        table.add_row("time per epoch, without evaluation", duration(seconds))
    return table
