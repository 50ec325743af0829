"""Plan + examples -> the batches that this process feeds to its replicas.

Decides: what a batch holds, how far ahead it is made. Never: how many replicas there are, or what is done with a batch.

    for batches in epoch_batches(examples, plan, order, replicas=range(0, 2)):
        ...                                                # one Batch per local replica
    for x, y in BatchGenerator(x, y, num_features, batch_size, rank, size).epoch():
        ...                                                # a user's own loop

A replica whose batch is empty in the last step is fed one example with weight zero: it takes part in every
collective and adds exactly nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from distrain.batch import Batch, step_flags
from distrain.data.block_reader import BlockReader
from distrain.data.collate import RowStream, sparse_rows, word_rows
from distrain.data.examples import CsrRows, Examples, Features, PackedRows
from distrain.data.plan import EpochPlan
from distrain.data.shuffle import ShuffledOrder, epoch_order


def epoch_batches(
    examples: Examples, plan: EpochPlan, order: ShuffledOrder, *, replicas: range, epoch: int = 0
) -> Iterator[list[Batch]]:
    """Yield, for each step of the plan, one `Batch` per replica in `replicas`."""
    reader = BlockReader(examples, plan, order, replicas)
    streams = {name: RowStream(sizes, order) for name, sizes in examples.sizes.items()}
    for step in range(plan.num_steps):
        of_all = plan.global_positions(step)
        global_weight = reader.weights(of_all).sum(dtype=np.float64)
        batches = []
        for replica in replicas:
            positions = plan.positions(step, replica)
            fed = positions or of_all[:1]
            features, labels = reader.take(positions) if positions else _one(examples, order, fed.start)
            weights = reader.weights(positions) if positions else np.zeros(1, np.float32)
            features = _placed(features, streams, fed, examples.num_columns)
            batches.append(
                Batch(
                    features,
                    labels,
                    weights,
                    epoch=np.int64(epoch),
                    first_position=np.int64(positions.start),
                    global_weight=np.float32(global_weight),
                    step_flags=step_flags(replica),
                )
            )
        if step + 1 < plan.num_steps:
            next_own = plan.positions(step + 1, replicas.start)
            if next_own and order.block_of(next_own.start).first_position < of_all.stop:
                # Others need that block in this step already. It takes long to read, so all read it now: else those who
                # need it next would do so then, and all would wait twice.
                reader.hold(order.block_of(next_own.start))
                for stream in streams.values():
                    stream.before(next_own.start)
        yield batches


def sample_batch(examples: Examples) -> Batch:
    """The first one or two examples as a batch, to build a model on."""
    plan = EpochPlan(examples.num_examples, 1, min(2, examples.num_examples))
    order = epoch_order(plan.num_examples, seed=0, epoch=0, shuffle=False)
    (batch,) = next(epoch_batches(examples, plan, order, replicas=range(1)))
    return batch


def zero_weight_batch(sample: Batch, replica: int) -> Batch:
    """A batch that weighs nothing, for a replica that has nothing to feed but must take part in a step."""
    weights = np.zeros_like(sample.weights)
    return sample._replace(weights=weights, global_weight=np.float32(0), step_flags=step_flags(replica))


def _one(examples: Examples, order: ShuffledOrder, position: int) -> tuple[Features, np.ndarray]:
    """Features and labels at one position."""
    (example,) = order.examples(range(position, position + 1))
    return examples.load(np.array([[example, example + 1]]), np.zeros(1, np.int64))(0, 1)


def _placed(
    features: Features, streams: Mapping[str, RowStream], fed: range, num_columns: Mapping[str, int], name: str = ""
) -> Features:
    """Rows of any length as a step takes them; other features as they are."""
    if isinstance(features, dict):
        return {key: _placed(value, streams, fed, num_columns, key) for key, value in features.items()}
    if isinstance(features, PackedRows):
        return word_rows(features, streams[name].before(fed.start), num_columns[name])
    if isinstance(features, CsrRows):
        return sparse_rows(features, streams[name].before(fed.start), len(fed))
    return features
