"""XLA of the forward and backward pass of a user's model, as Keras compiles both with `jit_compile=True`.

Decides: whether XLA can compile a model, and which part of a step. Never: sums over replicas, or updates weights.

    check_model_jit(task, replicas, sample)                # refuses in a sentence, before the first step
    gradients, sums = make_share_gradients(task)(task, batch, total)

XLA compiles once for each shape, so all examples must have one shape. The last batch of an epoch may have fewer
examples, which costs a second compilation.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf

from distrain.batch import Batch, SparseRows, WordRows
from distrain.data.nests import leaves
from distrain.errors import ConfigurationError
from distrain.keras_backend.private_names import all_layers
from distrain.training.steps.gradients import share_gradients
from distrain.training.steps.losses import Total
from distrain.training.steps.task import TrainableModel

ShareGradients = Callable[[TrainableModel, Batch, Total], tuple[list[Any], list[Any]]]

_CURE = "Leave out --jit-model, and jit_compile=True of the model's compile."


class CompiledReplicas(Protocol):
    """The part of `Distribution` that decides whether XLA may compile the model."""

    local_update: bool


def make_share_gradients(task: TrainableModel) -> ShareGradients:
    """Return `share_gradients`, compiled by XLA if the task asks for it.

    The compiled function calls no collective: its `total` must return tensors that exist before the call, or its
    argument.
    """
    if not task.jit_model:
        return share_gradients

    for_all = _compiled(task, lambda divisor: divisor)

    def compiled(task: TrainableModel, batch: Batch, total: Total) -> tuple[list[Any], list[Any]]:
        own: tuple[list[Any], list[Any]] = (_compiled(task, total) if task.has_divisors else for_all)(batch)
        return own

    return compiled


def check_model_jit(task: TrainableModel, replicas: CompiledReplicas, sample: Batch) -> None:
    """Check before the first step that XLA can compile forward and backward pass, if the task asks for it.

    Raises:
        ConfigurationError: the replicas, the shapes of the data or an operation of the model stand against it.
    """
    if not task.jit_model:
        return
    if not replicas.local_update:
        raise ConfigurationError(
            "XLA cannot compile a model that trains on several devices of one process, because TensorFlow's strategy "
            f"updates moving averages across devices. {_CURE} Or train with --strategy horovod or mpi."
        )
    varying = [value for _, value in leaves(sample.features) if isinstance(value, (SparseRows, WordRows))]
    if varying:
        raise ConfigurationError(
            "XLA would compile the model again for nearly each batch, because sparse rows and packed words have "
            f"another number of entries in each. {_CURE}"
        )
    unfit = sorted({layer.name for layer in all_layers(task.model) if not layer.supports_jit})
    if unfit:
        raise ConfigurationError(f"XLA cannot compile the layers {', '.join(unfit)}, says Keras. {_CURE}")
    try:
        batch = tf.nest.map_structure(tf.constant, sample)
        _compiled(task, lambda divisor: divisor).experimental_get_compiler_ir(batch)(stage="hlo")
    except (tf.errors.OpError, ValueError, NotImplementedError) as error:
        raise ConfigurationError(f"XLA cannot compile the model: {_reason(error)}. {_CURE}") from None


def _compiled(task: TrainableModel, total: Total) -> Any:
    return tf.function(lambda batch: share_gradients(task, batch, total), jit_compile=True, autograph=False)


def _reason(error: Exception) -> str:
    """Return which operations XLA does not know, or the first line of an error."""
    message = str(error)
    found = re.search(r"unsupported operations.*?_JIT:(.*)", message)
    unknown = re.findall(r"(\w+) \(No registered", found[1]) if found else []
    if unknown:
        return f"it has no kernel for {', '.join(sorted(set(unknown)))}"
    return message.strip().splitlines()[0].rstrip(".")[:300]
