"""A compiled model's metrics as sums: every replica sums states, and the total gives the result.

Decides: how the states of Keras' metrics become sums, and how sums become results. Never: sums over replicas or steps.

    states = MetricStates(model)
    with states.scope() as scope:                 # inside a compiled step
        model.compute_metrics(x, y, y_pred, sample_weight)
    sums = states.added(scope, batch)             # a list of tensors
    states.results([loss, count, *total_of_all_sums])      # {"loss": 0.5, "accuracy": 0.875}

The variables of the metrics never change. `shares.py` checks that a metric's state adds up over shares of a batch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from distrain.batch import Batch, current_batch
from distrain.keras_backend.private_names import loss_tracker, output_loss_trackers
from distrain.training.steps.losses import fraction


def leaf_metrics(model: Any) -> list[Any]:
    """Return the metrics of a compiled model one by one, without Keras' own tracker of the loss."""
    groups = [metric for metric in model.metrics if metric is not loss_tracker(model)]
    return [metric for group in groups for metric in getattr(group, "metrics", [group])]


class MetricScope(keras.StatelessScope):
    """Collects the states of metrics, which start as given; all other variables are as outside the scope.

    Args:
        states: variables of metrics, each with its start value.
        model: the model that computes within the scope.
        batch_states: ids of variables that follow the examples; an idle replica's example does not count.
    """

    def __init__(self, states: Iterable[tuple[Any, Any]], model: Any, batch_states: frozenset[int]) -> None:
        self._batch_states = batch_states
        states = list(states)
        self._metric_variables = {id(variable) for variable, _ in states}
        # Within a scope Keras looks for the weight of a regularizer among the variables that the scope names.
        regularized = [(weight, weight) for weight in model.trainable_variables if weight.regularizer is not None]
        super().__init__([*states, *regularized], collect_losses=True)

    def add_update(self, update: tuple[Any, Any]) -> None:
        """Collect a new state of a metric; assign the new value of another variable."""
        variable, value = update
        if id(variable) in self._metric_variables:
            super().add_update(update)
            return
        self.__exit__()
        batch = current_batch()
        if batch is not None and id(variable) in self._batch_states:
            value = tf.where(batch.num_rows > 0, value, variable.value)
        variable.assign(value)
        self.__enter__()
        if id(variable) in self.state_mapping:
            super().add_update((variable, tf.convert_to_tensor(variable.value)))


class MetricStates:
    """The states of all metrics of a compiled model, which has seen a sample batch.

    Args:
        model: the model, whose metrics are in their initial state.
        per_step: further metrics that count each step as one, as `keras.metrics.Mean` counts a scalar.
    """

    def __init__(self, model: Any, *, per_step: Collection[Any] = ()) -> None:
        self._model = model
        self._loss_tracker = loss_tracker(model)
        per_step_variables = {id(v) for metric in [*output_loss_trackers(model), *per_step] for v in metric.variables}
        own_of_loss = {id(v) for v in self._loss_tracker.variables}
        variables = {id(v): v for metric in model.metrics for v in metric.variables if id(v) not in own_of_loss}
        self._variables = list(variables.values())
        self._initial = [variable.numpy() for variable in self._variables]
        self._is_per_step = [number in per_step_variables for number in variables]
        self._batch_states: frozenset[int] = frozenset()

    def scope(self) -> MetricScope:
        """Return a scope in which the metrics start from their initial states."""
        starts = zip(self._variables, map(tf.constant, self._initial), strict=True)
        return MetricScope(starts, self._model, self._batch_states)

    def added(self, scope: MetricScope, batch: Batch) -> list[Any]:
        """Return what a share added to each state: a share's part of a step's count, nothing for an idle replica."""
        counts = tf.minimum(batch.num_rows, 1)
        added = []
        for variable, initial, is_per_step in zip(self._variables, self._initial, self._is_per_step, strict=True):
            change = scope.get_current_value(variable) - tf.constant(initial)
            if not change.shape.is_fully_defined():  # Keras compares shapes only as far as they are known
                change = tf.ensure_shape(change, initial.shape)
            factor = fraction(batch, change.dtype) if is_per_step else tf.cast(counts, change.dtype)
            added.append(tf.math.multiply_no_nan(change, factor) if change.dtype.is_floating else change * factor)
        return added

    def beside(self, batch_states: Iterable[Any]) -> MetricStates:
        """Return states whose scope keeps the example of an idle replica out of such variables of layers."""
        guarding = copy(self)
        guarding._batch_states = frozenset(map(id, batch_states))
        return guarding

    def after(self, sums: Sequence[np.ndarray]) -> MetricStates:
        """Return states that start where the sums of `added` end."""
        later = copy(self)
        later._initial = [(start + total).astype(start.dtype) for start, total in zip(self._initial, sums, strict=True)]
        return later

    def of(self, metric: Any, sums: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the sums of `added` for the states of one metric."""
        own = {id(variable) for variable in metric.variables}
        return [total for variable, total in zip(self._variables, sums, strict=True) if id(variable) in own]

    def results(self, sums: Sequence[np.ndarray]) -> dict[str, Any]:
        """Return loss and metrics by the names that Keras' `fit` gives: a number, or a list of a number per class.

        Args:
            sums: the loss times its count, the count, and the sums of `added`.
        """
        states = zip([*self._loss_tracker.variables, *self._variables], self._states(sums), strict=True)
        with keras.StatelessScope(states):
            results = _flat(self._model.get_metrics_result())  # here, as a result may be a variable itself
        loss = float(sums[0]) / float(sums[1]) if sums[1] else 0.0
        return {"loss": loss, **results}  # a model may leave out Keras' own "loss"

    def initial_results(self) -> dict[str, Any]:
        """Return what `results` gives before the first example: each figure's name and form."""
        with np.errstate(all="ignore"):
            return self.results([np.zeros(()), np.zeros(()), *map(np.zeros_like, self._initial)])

    def _states(self, sums: Sequence[np.ndarray]) -> list[Any]:
        loss = [tf.constant(value, self._loss_tracker.dtype) for value in sums[:2]]
        added = zip(self._initial, sums[2:], strict=True)
        return loss + [tf.constant(initial + total, initial.dtype) for initial, total in added]


def _flat(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return results as numbers or lists of numbers, and the items of a metric's dict one by one, as `fit` does."""
    flat: dict[str, Any] = {}
    for name, value in results.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: np.asarray(value).tolist()}
    return flat
