"""The table that `distrain plan` prints.

Decides: how a plan looks in 80 columns. Never: computes a prediction.

    console.print(plan_table(plan, dataset, plan_time(plan.batches.epoch, step_seconds=0.0031)))
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from distrain.data.plan import examples_per_replica
from distrain.data.prepared.dataset_index import Dataset
from distrain.planning.batch_plan import BatchPlan
from distrain.planning.epoch_time import TimePlan
from distrain.planning.run_plan import RunPlan
from distrain.planning.scale_out import ScaledStep


def plan_table(plan: RunPlan, dataset: Dataset, time: TimePlan | None = None) -> Table:
    """The plan as a table of two columns, with durations if `time` is given."""
    table, is_single = new_table(dataset.directory, plan.batches), plan.batches.epoch.num_replicas == 1
    table.add_row("model", "n-gram MLP" if dataset.kind == "ngram" else "sepCNN")
    add_batches(table, plan.batches)
    table.add_row("weights", f"{plan.num_weights:,}")
    table.add_row("model, gradients, Adam, per replica", format_bytes(plan.model_bytes))
    table.add_row("batch, per replica", format_bytes(plan.batches.batch_bytes))
    table.add_row("host memory for data, per process", format_bytes(plan.batches.host_bytes))
    table.add_row("all-reduced per step and replica", format_bytes(plan.all_reduce_bytes))
    if not is_single:
        rows = "n-grams" if dataset.kind == "ngram" else "words"
        table.add_row(f"{rows} in a global batch, estimated", f"{plan.touched_rows:,.0f} of {plan.num_rows:,}")
        table.add_row("all-reduced between CPUs, these rows alone", format_bytes(plan.touched_bytes))
    if time is not None:
        table.add_section()
        _add_time(table, time, is_single=is_single)
    return table


def new_table(name: object, plan: BatchPlan) -> Table:
    """Return an empty table of two columns for a plan of some data."""
    num_replicas = plan.epoch.num_replicas
    replicas = "1 replica" if num_replicas == 1 else f"{num_replicas:,} replicas"
    table = Table(title=f"{name}: {replicas}", title_justify="left", show_header=False)
    table.add_column(justify="left", style="bold")
    table.add_column(justify="right")
    return table


def add_batches(table: Table, plan: BatchPlan) -> None:
    """Add the batches of training and of an evaluation, in a section each."""
    epoch, validation = plan.epoch, plan.validation
    table.add_row("training examples", f"{epoch.num_examples:,}")
    table.add_row("batch per replica", f"{epoch.batch_size:,}")
    table.add_row("global batch", f"{epoch.global_batch_size:,}")
    table.add_row("batches per epoch", f"{epoch.num_batches:,}")
    table.add_row("steps per epoch", f"{epoch.num_steps:,}")
    table.add_row("examples per replica and epoch", _spread(examples_per_replica(epoch)))
    table.add_row("examples per replica, last step", _spread(plan.last_step_examples))
    table.add_section()
    table.add_row("validation examples", f"{validation.num_examples:,}")
    table.add_row("validation steps", f"{validation.num_steps:,}")
    table.add_section()


def _add_time(table: Table, time: TimePlan, *, is_single: bool) -> None:
    table.add_row("step, computing", f"{1000 * time.step_seconds:,.2f} ms")
    if time.all_reduce_seconds is not None and not is_single:
        table.add_row("step, waiting for the all-reduce", f"{1000 * time.all_reduce_seconds:,.2f} ms")
        table.add_row("share of a step that is computing", f"{time.efficiency:.2f}")
    elif not is_single:
        table.add_row("step, all-reduce", "not counted: no --link")
    add_epoch_time(table, time)


def add_epoch_time(table: Table, time: TimePlan) -> None:
    """Add the speed of training, and the duration of an epoch."""
    table.add_row("samples per second, all replicas", f"{time.samples_per_second:,.0f}")
    table.add_row("time per epoch, without evaluation", _duration(time.epoch_seconds))


def outlook_table(steps: Sequence[ScaledStep]) -> Table:
    """What each number of replicas would give, a row each."""
    table = Table(title="What more replicas give", title_justify="left")
    for header in ("replicas", "batch", "compute", "wait", "samples/s", "speedup", "efficiency"):
        table.add_column(header, justify="right")
    for step in steps:
        speedup = step.samples_per_second / steps[0].samples_per_second
        table.add_row(
            f"{step.num_replicas:,}",
            f"{step.batch_size:,}",
            f"{1000 * step.compute_seconds:,.2f} ms",
            f"{1000 * step.exposed_seconds:,.2f} ms",
            f"{step.samples_per_second:,.0f}",
            f"{speedup:,.2f}",
            f"{speedup * steps[0].num_replicas / step.num_replicas:.0%}",
        )
    return table


def _spread(counts: Sequence[int]) -> str:
    """Format numbers as one number if all are equal, else as the least and the most."""
    low, high = min(counts), max(counts)
    return f"{high:,}" if low == high else f"{low:,} to {high:,}"


def format_bytes(num_bytes: int) -> str:
    """Format a number of bytes."""
    return f"{num_bytes / 2**20:,.1f} MiB" if num_bytes >= 2**20 else f"{num_bytes / 2**10:,.1f} KiB"


def _duration(seconds: float) -> str:
    """Format a duration as 0.25 s, 12.3 s, 4 min 05 s, or 2 h 07 min."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02} min"
