"""Probabilities of classes, from the outputs of a model.

Decides: what an output means as a probability. Never: runs a model.

    >>> probabilities(np.array([[0.75]]), is_logits=False).tolist()
    [[0.25, 0.75]]
"""

from __future__ import annotations

import numpy as np


def probabilities(outputs: np.ndarray, *, is_logits: bool) -> np.ndarray:
    """Return the probability of each class, of outputs for one class or for all; of one, it is the second."""
    outputs = outputs.reshape(len(outputs), -1).astype(np.float64)
    if outputs.shape[1] == 1:
        rest = -outputs if is_logits else 1 - outputs
        outputs = np.concatenate([rest, outputs], axis=1) / (2 if is_logits else 1)  # softmax of -z/2, z/2: sigmoid z
    if not is_logits:
        return outputs
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
