"""Plan, order and examples -> the batches that this process feeds to its replicas.

Decides: what a batch contains. Never: how many replicas there are, or what a step does with a batch.

    for batches in epoch_batches(examples, plan, order, replicas=range(0, 2)):
        ...                                                # one Batch per local replica

A replica without examples in the last step is fed the first example of the step. Its `num_rows` is 0, so the example
must add exactly nothing, while the replica takes part in every collective.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from distrain.batch import Batch, step_flags
from distrain.data.collate import RowOffsets, collate
from distrain.data.examples import Examples, RowNests
from distrain.data.plan import EpochPlan
from distrain.data.shuffle import ShuffledOrder, epoch_order
from distrain.data.window_reader import WindowReader


def epoch_batches(
    examples: Examples, plan: EpochPlan, order: ShuffledOrder, *, replicas: range, epoch: int = 0
) -> Iterator[list[Batch]]:
    """Yield, for each step of the plan, one `Batch` per replica in `replicas`."""
    reader = WindowReader(examples, plan, order, replicas)
    offsets = {name: RowOffsets(row_sizes, order) for name, row_sizes in examples.row_sizes.items()}
    for step in range(plan.num_steps):
        global_positions = plan.global_positions(step)
        batches = []
        for replica in replicas:
            own = plan.positions(step, replica)
            fed = own or global_positions[:1]
            features, labels, weights = reader.read(own) if own else _read_one(examples, order, fed.start)
            batches.append(
                Batch(
                    collate(features, offsets, fed, examples.num_columns),
                    labels,
                    weights,
                    epoch=np.int64(epoch),
                    first_position=np.int64(own.start),
                    num_rows=np.int32(len(own)),
                    global_rows=np.int32(len(global_positions)),
                    step_flags=step_flags(replica),
                )
            )
        if step + 1 < plan.num_steps:
            next_own = plan.positions(step + 1, replicas.start)
            if next_own and order.window_of(next_own.start).first_position < global_positions.stop:
                # Other processes load this window in this step. A process that loaded the window a step later would
                # make all others wait a second time, so every process loads the window now.
                reader.load(order.window_of(next_own.start))
                for row_offsets in offsets.values():
                    row_offsets.offset_of(next_own.start)
        yield batches


def sample_batch(examples: Examples) -> Batch:
    """The first one or two examples as a batch, to build a model on."""
    count = min(2, examples.num_examples)
    plan, order = EpochPlan(count, 1, count), epoch_order(count, seed=0, epoch=0, shuffle=False)
    (batch,) = next(epoch_batches(examples, plan, order, replicas=range(1)))
    return batch


def idle_batch(sample: Batch, replica: int) -> Batch:
    """A batch of which no example counts, for a replica that has no examples but must take part in a step."""
    return sample._replace(num_rows=np.int32(0), step_flags=step_flags(replica))


def _read_one(examples: Examples, order: ShuffledOrder, position: int) -> RowNests:
    """Features, labels and weights at one position."""
    (example,) = order.examples(range(position, position + 1))
    return examples.load(np.array([[example, example + 1]]), np.zeros(1, np.int64))(0, 1)
