"""Proof that an epoch of a plan reads every example exactly once: `distrain plan --audit`.

Decides: what counts as an exact epoch. Never: has formulas of its own; the audit walks the loader of a run.

    audit(plan, seed=0, epoch=0, console=Console())

The audit gives `epoch_batches` a source whose features are example numbers, and may read the examples beside them. Each
replica has its own loader, as in a run with one process per replica. Memory is bounded by one shuffle window and a
4-byte counter per example.
"""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.progress import track

from distrain.batch import Memory
from distrain.data.batches import epoch_batches
from distrain.data.examples import Examples, LoadRows, RowNests, RowReader
from distrain.data.plan import EpochPlan
from distrain.data.shuffle import epoch_order
from distrain.errors import DataError


def audit(
    plan: EpochPlan,
    *,
    seed: int,
    epoch: int,
    console: Console | None = None,
    source: Examples | None = None,
    reads: bool = False,
) -> None:
    """Walk one epoch with the loaders of all replicas and count how often each example is read.

    Args:
        plan: the plan of an epoch.
        seed: seed of the order.
        epoch: epoch number from 0.
        console: terminal that shows a progress bar; None shows no bar.
        source: the training examples, which may have shuffle windows of their own; None for prepared text.
        reads: whether each example of `source` is read too, as training would.

    Raises:
        DataError: an example cannot be read, or is not read exactly once, which would be a defect of distrain.
    """
    if source is None:
        order = epoch_order(plan.num_examples, seed=seed, epoch=epoch)
    else:
        order = source.order(seed=seed, epoch=epoch)
    load = _reading(source) if source is not None and reads else _load_example_numbers
    examples = Examples(plan.num_examples, load, {}, "")
    loaders = [
        epoch_batches(examples, plan, order, replicas=range(replica, replica + 1), epoch=epoch)
        for replica in range(plan.num_replicas)
    ]
    counts = np.zeros(plan.num_examples, np.int32)
    for batches in track(
        zip(*loaders, strict=True),
        total=plan.num_steps,
        description=f"audit of epoch {epoch + 1}",
        console=console,
        transient=True,
        disable=console is None or not console.is_terminal,
    ):
        for (batch,) in batches:
            if batch.num_rows:  # an idle replica is fed an example that does not count
                np.add.at(counts, batch.features, 1)
    inexact = np.flatnonzero(counts != 1)
    if len(inexact):
        raise DataError(
            f"In epoch {epoch + 1} example {inexact[0]} is read {counts[inexact[0]]} times, and {len(inexact) - 1} "
            "others not exactly once. Please report this with the command."
        )


def _reading(source: Examples) -> LoadRows:
    """Return a loader of example numbers that reads the examples as well."""

    def load(spans: np.ndarray, indices: np.ndarray, memory: Memory = np.empty, epoch: int = 0) -> RowReader:
        read_rows = source.load(spans, indices, memory, epoch)
        read_numbers = _load_example_numbers(spans, indices)

        def read(start: int, stop: int) -> RowNests:
            read_rows(start, stop)
            return read_numbers(start, stop)

        return read

    return load


def _load_example_numbers(
    spans: np.ndarray, indices: np.ndarray, memory: Memory = np.empty, epoch: int = 0
) -> RowReader:
    ends = np.cumsum(spans[:, 1] - spans[:, 0])
    span_of = np.searchsorted(ends, indices, side="right")
    numbers = indices - ends[span_of] + spans[span_of, 1]

    def read(start: int, stop: int) -> RowNests:
        return numbers[start:stop], numbers[start:stop], ()

    return read
