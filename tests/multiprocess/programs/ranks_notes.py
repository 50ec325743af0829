"""Notes of what a rank feeds to its model and sends to the others, taken while the compiled steps run.

Decides: the content of the notes. Never: trusts the loader; each note holds the tensors that the model was called on.

    notes = Notes()
    model = notes.of_feeding(model)
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ranks_data import digest_of

from distrain.batch import SparseRows, WordRows, current_batch


class Notes:
    """Notes of one run on one rank.

    Attributes:
        fed: an object per call of the model: `purpose` ("train" or "evaluate"), `epoch`, `first_position`, and the
            digests and weights of the examples of weight above 0.
        sent: number of sums over the ranks, by the size of the buffer in numbers.
        begun: whether training has begun; checks before it also feed examples.
    """

    def __init__(self) -> None:
        self.begun = False
        self.fed: list[dict[str, Any]] = []
        self.sent: Counter[int] = Counter()

    def of_feeding(self, model: keras.Model) -> keras.Model:
        """Return the model, whose calls within a step are noted."""
        call = model.call

        def noting_call(inputs: Any, *args: Any, **settings: Any) -> Any:
            batch = current_batch()
            if batch is not None:
                purpose = "train" if settings.get("training") else "evaluate"

                def note(*arrays: np.ndarray) -> None:
                    self._note(purpose, tf.nest.pack_sequence_as(batch, list(arrays)))

                tf.numpy_function(note, tf.nest.flatten(batch), [])
            return call(inputs, *args, **settings)

        model.call = noting_call
        return model

    def beginning(self) -> keras.callbacks.Callback:
        """Return a callback that begins the notes."""
        return keras.callbacks.LambdaCallback(on_train_begin=lambda logs: setattr(self, "begun", True))

    @contextlib.contextmanager
    def of_sending(self, collectives: Any) -> Iterator[None]:
        """Note the sizes of the buffers that a backend's module sums in this context."""
        if collectives is None:  # one process
            yield
            return
        all_reduce_sum = collectives.all_reduce_sum

        def noting_sum(buffer: np.ndarray, **settings: Any) -> None:
            self.sent[buffer.size] += 1
            all_reduce_sum(buffer, **settings)

        collectives.all_reduce_sum = noting_sum
        try:
            yield
        finally:
            collectives.all_reduce_sum = all_reduce_sum

    def _note(self, purpose: str, batch: Any) -> None:
        if not self.begun:
            return
        digests = digests_of(batch.features, batch.labels)
        weights = np.ones(len(digests)) if isinstance(batch.weights, tuple) else batch.weights
        assert len(digests) == len(weights) == max(1, batch.num_rows), (len(digests), weights, batch.num_rows)
        counts = np.flatnonzero(weights[: batch.num_rows] > 0)
        self.fed.append(
            {
                "purpose": purpose,
                "epoch": int(batch.epoch),
                "first_position": int(batch.first_position),
                "examples": [digests[index] for index in counts],
                "weights": weights[counts].tolist(),
            }
        )


def digests_of(features: Any, labels: np.ndarray) -> list[str]:
    """Return the digest of each example: its nonzero features with their columns, and its label."""
    if isinstance(features, SparseRows):
        rows = [np.flatnonzero(features.row_ids == row) for row in range(len(labels))]
        pairs = [(features.columns[indices], features.values[indices]) for indices in rows]
    else:
        if isinstance(features, WordRows):
            units = features.words.reshape(len(features.row_ids), -1)
            features = [units[features.row_ids == row] for row in range(len(labels))]
        pairs = [(np.arange(row.size), row.ravel()) for row in features]
    return [digest_of(columns, values, label) for (columns, values), label in zip(pairs, labels, strict=True)]
