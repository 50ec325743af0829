"""The gradient of a step: of each share, over all replicas, and its use by the optimizer.

Decides: which gradients are summed over replicas, and which rows are gathered. Never: how tensors travel.

    gradients, sums = share_gradients(task, batch, total)
    gradients, sums = over_replicas(task, replicas, gradients, sums)
    make_update_if(task, replicas)(is_sound, gradients, [])

The gradient of an `Embedding` is the rows of the words of a batch. Keras' optimizers square or clip each row by itself,
also rows of one word (Keras 3.15). So the rows of all replicas are gathered, and the optimizer gets the same rows as in
one process. A layer that names each row once says so by `rows_are_summed` on its weight; its rows are summed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import tensorflow as tf

from distrain.batch import Batch
from distrain.errors import ConfigurationError
from distrain.training.steps.forward import forward_pass
from distrain.training.steps.losses import Total
from distrain.training.steps.task import TrainableModel


class SummingReplicas(Protocol):
    """The part of `Distribution` that gradients use."""

    def sum(self, gradients: Sequence[Any], metrics: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Sum tensors over all replicas."""

    def gather_rows(self, rows: Sequence[Any]) -> list[Any]:
        """Return the rows of all replicas, for each `tf.IndexedSlices`."""


class UpdatedReplicas(Protocol):
    """The part of `Distribution` that an update uses."""

    local_update: bool
    runs_ahead: bool

    def update_if(
        self, is_sound: Any, update: Callable[[Sequence[Any]], Any], gradients: Sequence[Any], changed: Sequence[Any]
    ) -> None:
        """Call `update(gradients)` if `is_sound`; else set each variable of `changed` to its value."""

    def select_values(self, is_sound: Any, changed: Sequence[Any]) -> None:
        """Set each variable of `changed` to its value unless `is_sound`."""


def share_gradients(task: TrainableModel, batch: Batch, total: Total) -> tuple[list[Any], list[Any]]:
    """Return a share's part of the gradients, and its sums.

    Args:
        task: the model.
        batch: the share.
        total: sums a divisor of the loss over all shares of the step.

    Returns:
        For each trainable weight a tensor, `tf.IndexedSlices`, or None if the loss ignores the weight; and the sums.

    Raises:
        ConfigurationError: the loss depends on no trainable weight.
    """
    variables = task.model.trainable_variables
    with tf.GradientTape() as tape:
        share = forward_pass(task, batch, training=True, total=total)
        loss = task.optimizer.scale_loss(share.loss)
    gradients = tape.gradient(loss, [v.value for v in variables])
    if not present(gradients):
        raise ConfigurationError("The loss depends on no trainable weight of the model; there is nothing to train.")
    return gradients, share.sums


def with_known_shapes(task: TrainableModel, gradients: Sequence[Any]) -> list[Any]:
    """Return the gradients of the trainable weights with the shapes of the weights, which compiled functions forget."""
    return [_of_known_shape(g, v) for g, v in zip(gradients, task.model.trainable_variables, strict=True)]


def over_replicas(
    task: TrainableModel, replicas: SummingReplicas, gradients: Sequence[Any], sums: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """Return gradients and sums over all replicas."""
    variables = task.model.trainable_variables
    is_gathered = [
        isinstance(gradient, tf.IndexedSlices) and not getattr(variable, "rows_are_summed", False)
        for gradient, variable in zip(gradients, variables, strict=True)
    ]
    pairs = list(zip(gradients, is_gathered, strict=True))
    own = present([gradient for gradient, is_rows in pairs if not is_rows])
    totals, sums = replicas.sum(own, sums)  # first, since the backward pass ends with an embedding's rows
    gathered = iter(replicas.gather_rows([rows for rows, is_rows in pairs if is_rows]))
    summed = iter(totals)
    return [g if g is None else next(gathered if is_rows else summed) for g, is_rows in pairs], sums


def make_update(task: TrainableModel, *, jit_compile: bool) -> Callable[[Sequence[Any]], Any]:
    """Return the optimizer's update as a function of gradients, compiled by XLA if `jit_compile` and all are dense."""
    variables = list(task.model.trainable_variables)

    def update(gradients: Sequence[Any]) -> Any:
        known = [pair for pair in zip(gradients, variables, strict=True) if pair[0] is not None]
        task.optimizer.apply_gradients(known)
        return tf.zeros(())

    compiled = tf.function(update, jit_compile=jit_compile, autograph=False)

    def fitting_update(gradients: Sequence[Any]) -> Any:
        has_rows = any(isinstance(gradient, tf.IndexedSlices) for gradient in gradients)
        return update(gradients) if has_rows or not jit_compile else compiled(gradients)

    return fitting_update


def make_update_if(
    task: TrainableModel, replicas: UpdatedReplicas
) -> Callable[[Any, Sequence[Any], Sequence[Any]], None]:
    """Return a function that updates all replicas if a tensor is true, else gives some variables their old values.

    A condition in the graph makes the host of a GPU wait for the tensor. So where replicas run ahead, the update
    selects between new and old values. XLA joins the selection with the update where it compiles the update.
    """
    uses_jit = replicas.local_update and task.jit_compile
    update = make_update(task, jit_compile=uses_jit and not replicas.runs_ahead)
    held = list({id(v): v for v in [*task.optimizer.variables, *task.model.trainable_variables]}.values())

    def select(is_sound: Any, gradients: Sequence[Any]) -> None:
        before = [(variable, tf.identity(variable.value)) for variable in held]
        update(gradients)
        replicas.select_values(is_sound, before)

    compiled_select = tf.function(select, jit_compile=True, autograph=False)

    def update_if(is_sound: Any, gradients: Sequence[Any], before: Sequence[Any]) -> None:
        if not replicas.runs_ahead:  # on a CPU a condition costs nothing, and a selection would copy each variable
            replicas.update_if(is_sound, update, gradients, before)
            return
        has_rows = any(isinstance(gradient, tf.IndexedSlices) for gradient in gradients)
        (compiled_select if uses_jit and not has_rows else select)(is_sound, gradients)
        replicas.select_values(is_sound, before)

    return update_if


def present(gradients: Sequence[Any]) -> list[Any]:
    """Return the gradients that are not None."""
    return [gradient for gradient in gradients if gradient is not None]


def added(a: Any, b: Any) -> Any:
    """Return the sum of two tensors; two `tf.IndexedSlices` one after the other; None for two None."""
    if not isinstance(a, tf.IndexedSlices):
        return None if a is None else a + b
    return tf.IndexedSlices(
        tf.concat([a.values, b.values], axis=0), tf.concat([a.indices, b.indices], axis=0), a.dense_shape
    )


def _of_known_shape(gradient: Any, variable: Any) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values, gradient.indices, tf.constant(tuple(variable.shape), tf.int64))
    if gradient is not None:
        gradient.set_shape(variable.shape)
    return gradient
