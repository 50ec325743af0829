"""The operations of a `tf.data.Dataset`, which TensorFlow names in private alone.

Decides: which private names tell the operations of a data set. Never: imports TensorFlow, because `data/`, which must
start without it, asks this module.

    last_operations(dataset)                     # ["Map", "Batch"]
"""

from __future__ import annotations

from typing import Any

BATCHING = ("Batch", "ParallelBatch", "PaddedBatch", "Rebatch")
_KEEPING = ("Prefetch", "Options", "Cache", "Shuffle", "Take", "Skip", "Repeat", "AssertCardinality", "Shard", "Filter")
_CHANGING = ("Map", "ParallelMap")
_MAX_OPERATIONS = 1000


def last_operations(dataset: Any) -> list[str]:
    """Return the last operations up to a batching one, the last one first, without those that keep elements.

    TensorFlow offers no public way to ask. Where the private one is gone, nothing is known: the list is empty.
    """
    found: list[str] = []
    for _ in range(_MAX_OPERATIONS):
        kind = type(dataset).__name__.strip("_").removesuffix("Dataset")
        if kind in BATCHING or kind in _CHANGING:
            found.append(kind)
        if kind in BATCHING or kind not in _CHANGING + _KEEPING or not hasattr(dataset, "_inputs"):
            break
        inputs = dataset._inputs()
        if len(inputs) != 1:
            break
        dataset = inputs[0]
    return found
