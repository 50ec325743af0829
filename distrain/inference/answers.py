"""What a model's outputs say about a text: its class, its labels, or a number.

Decides: the form of an answer, and when a label is predicted. Never: computes an output.

    for answer in answers(outputs, metadata, is_logits=False):
        answer                                   # {"label": "sport", "probability": 0.93}

Classes: `label`, the name of the most probable class, and its `probability`. Sets of labels: `labels`, the names with a
probability above 0.5, the most probable first, and their `probabilities`. Numbers: `value`, in the unit of the targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from distrain.inference.probabilities import probabilities
from distrain.training.jobs.job import TextMetadata

_DIGITS = 6  # of probabilities


def answers(outputs: np.ndarray, metadata: TextMetadata, *, is_logits: bool) -> Iterator[dict[str, Any]]:
    """Yield the answer for each row of a model's outputs.

    Args:
        outputs: `[n]` or `[n, outputs]`.
        metadata: what the model predicts.
        is_logits: whether outputs are no probabilities yet.
    """
    names = metadata.classes
    if metadata.task == "regression":
        for value in outputs.reshape(len(outputs), -1)[:, 0].tolist():
            yield {"value": value}
    elif metadata.task == "multilabel":
        rows = outputs.reshape(len(outputs), -1).astype(np.float64)
        for row in 0.5 + 0.5 * np.tanh(rows / 2) if is_logits else rows:  # the sigmoid, without an overflow
            found = np.flatnonzero(row > 0.5)
            found = found[np.argsort(-row[found], kind="stable")]
            values = [round(value, _DIGITS) for value in row[found].tolist()]
            yield {"labels": [names[label] for label in found], "probabilities": values}
    else:
        for row in probabilities(outputs, is_logits=is_logits):
            best = int(row.argmax())
            yield {"label": names[best], "probability": round(float(row[best]), _DIGITS)}
