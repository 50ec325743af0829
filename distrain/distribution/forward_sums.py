"""Sums over replicas in the forward pass of a step, which gradients pass through.

Decides: where such a sum may stand, and what its gradient is. Never: how tensors travel.

    with step_graph():                                  # around the trace of a step
        totals = differentiable_sum(reduce, tensors)    # in the forward pass

Ranks meet in each sum, so all ranks must begin their sums in one order. All ranks trace the same step, and a
`tf.function` runs stateful operations of one graph in the order of the trace. A loop or a condition is a graph of its
own, which ranks may run in different ways.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from distrain.errors import ConfigurationError

_trace = threading.local()  # MirroredStrategy traces each replica in a thread of its own


@contextmanager
def step_graph() -> Iterator[None]:
    """Note the graph of the step that this thread traces in this context."""
    before = getattr(_trace, "graph", None)
    _trace.graph = tf.compat.v1.get_default_graph()
    try:
        yield
    finally:
        _trace.graph = before


def differentiable_sum(reduce: Callable[[Sequence[Any]], list[Any]], tensors: Sequence[Any]) -> list[Any]:
    """Return the sums of `tensors` over all replicas, and let gradients pass.

    The loss is a sum over replicas. So the gradient of a tensor is the sum over all replicas of the gradients of the
    tensor's total.

    Args:
        reduce: sums tensors over all replicas, in one collective.
        tensors: float32 or float64 tensors of the same shapes on all replicas.

    Raises:
        ConfigurationError: the sum stands in a loop or a condition of the step, or outside a step.
    """

    @tf.custom_gradient
    def total(*given: Any) -> tuple[list[Any], Callable[..., list[Any]]]:
        _require_step_graph()
        return reduce(given), gradient

    def gradient(*upstream: Any) -> list[Any]:
        _require_step_graph()
        return reduce(upstream)

    return list(total(*tensors)) if tensors else []


def _require_step_graph() -> None:
    graph = getattr(_trace, "graph", None)
    if graph is None or tf.compat.v1.get_default_graph() is not graph:
        raise ConfigurationError(
            "A sum over all replicas, as of BatchNormalization(synchronized=True), stands inside a loop, a condition "
            "or a compiled function of its own, which ranks may run in different ways. Move the layer out of there (a "
            "known number of time steps unrolls TimeDistributed), or do not synchronize the layer."
        )
