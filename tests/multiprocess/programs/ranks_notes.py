"""What a rank really feeds to its model and sends to the others, noted while the compiled steps run.

Decides: what is noted. Never: from where a batch came: the notes are taken inside the compiled step, at the model's
call, from the tensors that it is called on.

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
        fed: per call of the model: what for ("train" or "evaluate"), epoch, first position, the digest of each example
            that weighs something, and their weights.
        sent: how often a buffer of so many numbers was summed over the ranks.
    """

    def __init__(self) -> None:
        self.fed: list[dict[str, Any]] = []
        self.sent: Counter[int] = Counter()

    def of_feeding(self, model: keras.Model) -> keras.Model:
        """The model, which notes what it is called on in a step."""
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

    @contextlib.contextmanager
    def of_sending(self, collectives: Any) -> Iterator[None]:
        """Note the sizes of what a backend's module sums; in this context."""
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
        counts = np.flatnonzero(batch.weights > 0)
        digests = digests_of(batch.features, batch.labels)
        assert len(digests) == len(batch.weights), (len(digests), batch.weights)
        self.fed.append(
            {
                "purpose": purpose,
                "epoch": int(batch.epoch),
                "first_position": int(batch.first_position),
                "examples": [digests[place] for place in counts],
                "weights": batch.weights[counts].tolist(),
            }
        )


def digests_of(features: Any, labels: np.ndarray) -> list[str]:
    """Digest of each example: its features that are not zero, with their columns, and its label."""
    if isinstance(features, SparseRows):
        rows = [np.flatnonzero(features.row_ids == row) for row in range(len(labels))]
        pairs = [(features.columns[places], features.values[places]) for places in rows]
    else:
        if isinstance(features, WordRows):
            units = features.words.reshape(len(features.row_ids), -1)
            features = [units[features.row_ids == row] for row in range(len(labels))]
        pairs = [(np.arange(row.size), row.ravel()) for row in features]
    return [digest_of(columns, values, label) for (columns, values), label in zip(pairs, labels, strict=True)]
