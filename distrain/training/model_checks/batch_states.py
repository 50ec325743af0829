"""Variables of layers that follow the examples of a batch, such as a running mean that a user's layer keeps.

Decides: which variables these are, and what a run says about them. Never: averages them; `Distribution.synchronize`
does.

    states = batch_states(task, probe)                       # [<Variable path=running_mean/mean>]
    warning = dependence_on_replicas(states, task, probe, num_replicas=2, accumulation_steps=1)

Two small batches are called from the same state. A variable that both set to one value is a counter or a seed, and
follows no example.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from distrain.batch import Batch
from distrain.data.examples import Examples
from distrain.keras_backend.private_names import all_layers
from distrain.training.model_checks.mixed_examples import mixes_examples
from distrain.training.model_checks.shares import MIN_EXAMPLES, NUM_EXAMPLES, SHARE_SIZE, shares_of
from distrain.training.steps.task import TrainableModel, training_call


def batch_states(task: TrainableModel, examples: Examples) -> list[Any]:
    """Return the variables that a replica changes by its own examples alone, in the order of the model's variables.

    Args:
        task: the model; a synchronized `BatchNormalization` uses the examples of all replicas.
        examples: training examples, of which a few are read.
    """
    metrics = {id(variable) for variable in task.model.metrics_variables}
    shared = {id(v) for layer in _normalizing(task.model) if layer.synchronized for v in layer.non_trainable_variables}
    states = [v for v in task.model.non_trainable_variables if id(v) not in metrics | shared]
    num_examples = min(NUM_EXAMPLES, examples.num_examples)
    if not states or num_examples < MIN_EXAMPLES:
        return []
    shares = shares_of(examples, num_examples, min(SHARE_SIZE, num_examples - 1))
    first, second = (_updated(task, share, states) for share in shares)
    pairs = zip(states, first, second, strict=True)
    return [state for state, one, other in pairs if not np.array_equal(one, other, equal_nan=one.dtype.kind == "f")]


def dependence_on_replicas(
    states: Sequence[Any], task: TrainableModel, probe: Examples, *, num_replicas: int, accumulation_steps: int
) -> str | None:
    """Return a sentence for the user if other layers than Keras' batch normalization depend on N, else None."""
    if num_replicas * accumulation_steps == 1:
        return None
    normalizing = _normalizing(task.model)
    of_keras = {id(v) for layer in normalizing for v in layer.non_trainable_variables}
    own = [state.path for state in states if id(state) not in of_keras]
    if not own and not normalizing and mixes_examples(task, probe):
        return (
            "In training, the outputs of an example depend on other examples of its microbatch: the model depends on "
            f"the number of replicas ({num_replicas}) and of accumulation steps ({accumulation_steps}). Train on one "
            "replica for the values of plain Keras."
        )
    if not own:
        return None
    others = f" (and {len(own) - 1} more)" if len(own) > 1 else ""
    return (
        f"The variable {own[0]!r}{others} follows the examples of each microbatch alone: the model depends on the "
        f"number of replicas ({num_replicas}) and of accumulation steps ({accumulation_steps}). Validation and "
        "checkpoints use the mean over the replicas. Train on one replica for the values of plain Keras."
    )


def _normalizing(model: Any) -> list[Any]:
    return [layer for layer in all_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]


def _updated(task: TrainableModel, batch: Batch, states: Sequence[Any]) -> list[np.ndarray]:
    """Return the values that a training call on a batch would give to the states; no variable changes."""
    with keras.StatelessScope(collect_losses=True) as scope:
        training_call(task, batch)
    values = [(scope.get_current_value(state), state) for state in states]
    return [tf.convert_to_tensor(state if value is None else value).numpy() for value, state in values]
