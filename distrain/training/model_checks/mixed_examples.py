"""A check at the start: whether a training call lets the examples of a batch meet.

Decides: when the outputs of an example depend on other examples of its batch. Never: what a run says about them.

    mixes_examples(task, probe)         # True for a layer that subtracts the mean of the batch while it trains

A few examples are called twice, the second time with another last one, from one state of each random generator.
The outputs of the other examples must stay. `shares.py` compares losses without training, which such a layer passes.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from distrain.batch import Batch
from distrain.data.examples import Examples
from distrain.data.split import chosen_examples
from distrain.training.model_checks.shares import MIN_EXAMPLES, shares_of
from distrain.training.steps.task import TrainableModel, training_call

TOLERANCE = 1e-3  # of the largest output; the batches have one shape, so rounding is far smaller


def mixes_examples(task: TrainableModel, probe: Examples) -> bool:
    """Return whether outputs depend on other examples; False too if random layers hide what they depend on.

    Args:
        task: the model; no variable changes.
        probe: a few examples.
    """
    if probe.num_examples < MIN_EXAMPLES:
        return False
    *others, last, new = range(probe.num_examples)
    parts = [chosen_examples(probe, np.array([*others, number])) for number in (last, new)]
    first, second = (batch for part in parts for batch in shares_of(part, part.num_examples, part.num_examples))
    before, again, after = (_outputs(task, batch) for batch in (first, first, second))
    return _agree(before, again) and not _agree(before, after)


def _outputs(task: TrainableModel, batch: Batch) -> list[np.ndarray]:
    """Return the outputs of a training call for all examples of a batch but the last."""
    with keras.StatelessScope(collect_losses=True):
        outputs = training_call(task, batch)
    arrays: list[Any] = [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(outputs)]
    return [array[:-1] for array in arrays if array.shape[:1] == (batch.num_rows,)]


def _agree(outputs: list[np.ndarray], others: list[np.ndarray]) -> bool:
    if [output.shape for output in outputs] != [other.shape for other in others]:
        return True  # such as lists of another length, which tell nothing
    pairs = ((np.asarray(a, "float64"), np.asarray(b, "float64")) for a, b in zip(outputs, others, strict=True))
    return all(np.allclose(a, b, rtol=0, atol=TOLERANCE * np.abs(a).max(initial=0), equal_nan=True) for a, b in pairs)
