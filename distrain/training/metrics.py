"""Metrics as sums: every replica sums states, and the total gives the result.

Decides: how a Keras metric becomes sums, and how sums become a result. Never: sums over replicas or steps.

    metrics = MetricSums(["accuracy"], labels, outputs)
    sums = metrics.of_batch(labels, outputs, weights)     # inside a compiled step: a list of tensors
    metrics.results(total_of_all_sums)                    # {"accuracy": 0.875}

A metric's state must be additive: the state of two batches together is the sum of both states. This holds for all
metrics of Keras. So a result is exact for any division of the examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from distrain.errors import ConfigurationError


class MetricSums:
    """A set of Keras metrics, whose own states stay unused.

    Args:
        metrics: names or `keras.metrics.Metric` objects; as in Keras, shapes decide what "accuracy" means.
        labels: labels of a sample batch, which build the metrics.
        outputs: the model's outputs for the sample batch.

    Raises:
        ConfigurationError: a metric is unknown, or does not accept these labels and outputs.
    """

    def __init__(self, metrics: Sequence[Any], labels: Any, outputs: Any) -> None:
        self._metrics = []
        for given in metrics:
            metric = _metric(given, labels, outputs)
            try:  # as in a step; some metrics create their variables only now
                metric.update_state(labels, outputs, sample_weight=tf.ones(len(labels)))
            except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
                raise ConfigurationError(f"The metric {metric.name!r} does not fit this model: {error}") from error
            metric.reset_state()
            self._metrics.append(metric)
        self.names = [metric.name for metric in self._metrics]
        self._initial = [[v.numpy() for v in metric.variables] for metric in self._metrics]

    def of_batch(self, labels: Any, outputs: Any, weights: Any) -> list[Any]:
        """Return this batch's contribution to the sums: one tensor per state variable of all metrics."""
        added = []
        for metric, initial in zip(self._metrics, self._initial, strict=True):
            state = [tf.constant(value) for value in initial]
            new_state = metric.stateless_update_state(state, labels, outputs, sample_weight=weights)
            added += [after - before for after, before in zip(new_state, state, strict=True)]
        return added

    def results(self, sums: Sequence[np.ndarray]) -> dict[str, float]:
        """Return the results of summed `of_batch` tensors, by metric name."""
        results_by_name = {}
        remaining = list(sums)
        for metric, initial in zip(self._metrics, self._initial, strict=True):
            own, remaining = remaining[: len(initial)], remaining[len(initial) :]
            state = [tf.constant(before + total, before.dtype) for before, total in zip(initial, own, strict=True)]
            results_by_name[metric.name] = float(metric.stateless_result(state))
        return results_by_name


def _metric(given: Any, labels: Any, outputs: Any) -> Any:
    if given in ("accuracy", "acc"):
        if outputs.shape[-1] == 1 or len(outputs.shape) == 1:
            return keras.metrics.BinaryAccuracy(name="accuracy")
        if len(labels.shape) == len(outputs.shape) and labels.shape[-1] == outputs.shape[-1]:
            return keras.metrics.CategoricalAccuracy(name="accuracy")
        return keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    try:
        metric = keras.metrics.get(given)
    except ValueError as error:
        raise ConfigurationError(f"{given!r} is not a metric that Keras knows: {error}") from None
    if not isinstance(metric, keras.metrics.Metric):
        return keras.metrics.MeanMetricWrapper(metric, name=getattr(metric, "__name__", str(given)))
    return metric
