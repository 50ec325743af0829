"""The batch of one replica in one step, and the current batch while a step calls a model.

Decides: the fields of a batch. Never: how batches are made or used; imports no TensorFlow.

    with feeding(batch):                       # a training step calls the model in this context
        outputs = model(batch.features, training=True)
    current_batch().first_position             # a layer keys its random numbers by the position

The fields hold NumPy arrays on the host and tensors inside a compiled step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

Memory = Callable[[tuple[int, ...], Any], np.ndarray]  # shape, dtype -> an array whose values are not set


class SparseRows(NamedTuple):
    """Sparse rows of one batch in row order.

    The last row always has an entry, a zero if necessary, so that a sum over `row_ids` has as many rows as the batch.

    Attributes:
        row_ids: int32 `[nnz]`, ascending: the row of each entry.
        columns: int32 `[nnz]`: the column of each entry.
        values: float32 `[nnz]`.
        first_entry: int64 scalar: entries of all earlier rows of the epoch; a key of dropout.
    """

    row_ids: Any
    columns: Any
    values: Any
    first_entry: Any


class WordRows(NamedTuple):
    """Rows of word ids, one after the other with little padding: the work of a step is proportional to the words.

    Each row begins at a multiple of `pad_multiple` tokens and ends with at least `pad_multiple` padding tokens. So a
    layer that reads neighbouring tokens, or pools `pad_multiple` tokens into one, keeps the rows apart.

    Attributes:
        words: int32 `[packed_tokens]`: word ids, with id 0 for padding.
        row_ids: int32 `[packed_tokens / pad_multiple]`, ascending: the row of each chunk of `pad_multiple` tokens.
        first_token: int64 scalar: packed tokens of all earlier rows of the epoch; a key of dropout.
        order: int32 `[words]`: indices of the words among the packed tokens, by ascending word id.
        segments: int32 `[words]`, ascending: for each entry of `order`, the index of its word in `touched`.
        touched: int32 `[m]`: the distinct word ids, ascending.
    """

    words: Any
    row_ids: Any
    first_token: Any
    order: Any
    segments: Any
    touched: Any


class Batch(NamedTuple):
    """The batch of one replica in one step.

    A nest is a value, or lists, tuples and dicts of values. A replica without examples of its own is fed one example
    with `num_rows` 0, which must add nothing. So the replica takes part in every collective.

    Attributes:
        features: a nest of arrays `[b, ...]`, `SparseRows` and `WordRows`.
        labels: a nest of arrays `[b, ...]`; `()` if the data has no labels.
        weights: floating arrays `[b, ...]` in the structure of `labels`, Keras' `sample_weight` in form; `()` for all
            labels, or for one label, without weights.
        epoch: int64 scalar, a key of dropout.
        first_position: int64 scalar: position of the first example in the epoch, a key of dropout and audits.
        num_rows: int32 scalar: examples of this batch that count, b or 0.
        global_rows: int32 scalar: examples of all replicas and all microbatches in this step.
        step_flags: float32 `[3]`: flags that the process sends to all others, see `step_flags`.
    """

    features: Any
    labels: Any
    weights: Any
    epoch: Any
    first_position: Any
    num_rows: Any
    global_rows: Any
    step_flags: Any


def step_flags(replica: int, *, stop: bool = False, failed: bool = False) -> np.ndarray:
    """Return the flags that a process sends to all others with a step, float32 `[3]`.

    Args:
        replica: number of the replica, from 0.
        stop: whether the process received a request to stop.
        failed: whether the process cannot continue.
    """
    return np.array([stop, failed, replica + 1], np.float32)


_current = threading.local()  # MirroredStrategy traces each replica in a thread of its own


@contextmanager
def feeding(batch: Batch) -> Iterator[None]:
    """Make `batch` the current batch of this thread while a step calls a model on the batch."""
    before = current_batch()
    _current.batch = batch
    try:
        yield
    finally:
        _current.batch = before


def current_batch() -> Batch | None:
    """Return the batch on which a step of this thread is calling a model; None outside a step."""
    return getattr(_current, "batch", None)
