"""The table that `distrain plan` prints.

Decides: how a plan looks in 80 columns. Never: works anything out.

    console.print(plan_table(plan, dataset))
"""

from __future__ import annotations

from rich.table import Table

from distrain.data.shards import Dataset
from distrain.planning import RunPlan


def plan_table(plan: RunPlan, dataset: Dataset) -> Table:
    """The plan as a table of two columns."""
    table = Table(title=f"{dataset.directory}: {plan.num_replicas} replicas", title_justify="left", show_header=False)
    table.add_column(justify="left", style="bold")
    table.add_column(justify="right")
    table.add_row("model", "n-gram MLP" if dataset.kind == "ngram" else "sepCNN")
    table.add_row("training examples", f"{plan.num_examples:,}")
    table.add_row("batch per replica", f"{plan.batch_size:,}")
    table.add_row("global batch", f"{plan.batch_size * plan.num_replicas:,}")
    table.add_row("batches per epoch", f"{plan.num_batches:,}")
    table.add_row("steps per epoch", f"{plan.num_steps:,}")
    table.add_row("examples per replica and epoch", _spread(plan.examples_per_replica))
    table.add_row("examples per replica, last step", _spread(plan.last_step_examples))
    table.add_section()
    table.add_row("validation examples", f"{plan.num_validation_examples:,}")
    table.add_row("validation steps", f"{plan.num_validation_steps:,}")
    table.add_section()
    table.add_row("weights", f"{plan.num_weights:,}")
    table.add_row("model, gradients, Adam, per replica", _size(plan.model_bytes))
    table.add_row("batch, per replica", _size(plan.batch_bytes))
    table.add_row("host memory for data, per process", _size(plan.host_bytes))
    table.add_row("all-reduced per step and replica", _size(plan.all_reduce_bytes))
    return table


def _spread(counts: tuple[int, ...]) -> str:
    least, most = min(counts), max(counts)
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB" if num_bytes >= 2**20 else f"{num_bytes / 2**10:,.1f} KiB"
