"""Metrics of an epoch over all ranks.

Decides: how the metrics of all ranks become one. Never: which metrics exist, or who uses them.

    model.fit(batches, shuffle=False, callbacks=[BroadcastCallback(), MetricAverageCallback(batches), EarlyStopping()])
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from distrain.errors import ConfigurationError
from distrain.horovod import init
from distrain.horovod.batches import RankBatches


class MetricAverageCallback(keras.callbacks.Callback):
    """Replace an epoch's metrics by the metrics over all ranks, which are the same on each rank.

    Place this callback before callbacks that read metrics: `EarlyStopping`, `ReduceLROnPlateau`, `ModelCheckpoint`. The
    ranks sum the metrics' states instead of averaging results. So each example counts once, and AUC or precision equal
    the result of one process. Other entries of the logs, as from a user's `train_step`, become plain averages.

    Validation metrics are exact on `RankBatches(..., training=False)` or any other division of the examples. Keras
    averages the loss of one of several outputs over batches, so this loss depends on their sizes. Training
    metrics are exact if `batches` is given. Otherwise the ragged last step counts slightly wrong: an example that an
    idle rank reads, and the losses of several outputs. The progress bar and `on_train_end` show this rank's own
    metrics.

    Args:
        batches: the batches that `fit` reads, or None.

    Raises:
        ConfigurationError: when `fit` begins, if several steps per execution would hide a last step that needs
            correction.
    """

    def __init__(self, batches: RankBatches | None = None) -> None:
        super().__init__()
        self._batches = batches
        self._before: dict[int, np.ndarray] | None = None
        self._metrics: dict[str, Any] | None = None  # metrics known so far of the current epoch

    def on_train_begin(self, logs: Any = None) -> None:
        """Check that a step is visible that needs correction."""
        if self._batches is None or self.model.steps_per_execution == 1:
            return
        ranks = range(init().size)
        rows = {self._batches.rows(len(self._batches) - 1, rank)[0] for rank in ranks}
        has_outputs = any(_is_loss_of_output(metric) for metric in self.model.metrics)
        if 0 in rows or (has_outputs and len(rows) > 1):
            raise ConfigurationError(
                f"steps_per_execution is {self.model.steps_per_execution}; exact training metrics need 1 here, as the "
                "ranks have different numbers of examples in the last step. Set it to 1, or leave out the batches: "
                "MetricAverageCallback()."
            )

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Remember the metrics' states before the last step, which may be ragged."""
        if self._batches is not None and batch == len(self._batches) - 1 and init().size > 1:
            self._before = {id(v): v.numpy() for metric in self.model.metrics for v in metric.variables}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Correct the last step: no example counts of a rank without examples."""
        if self._before is None or self._batches is None:
            return
        num_rows, num_all = self._batches.rows(len(self._batches) - 1)
        for metric in self.model.metrics:
            if _is_loss_of_output(metric) and not self.model.run_eagerly:
                # In a graph Keras counts steps for such a loss: [sum, count] grows by [the rank's mean, 1].
                factors = [init().size * num_rows / num_all, 1.0]
            elif num_rows:
                continue
            else:
                factors = [0.0] * len(metric.variables)
            for variable, factor in zip(metric.variables, factors, strict=True):
                before = self._before.get(id(variable), 0)
                variable.assign(np.asarray(before + factor * (variable.numpy() - before), variable.dtype))
        self._before = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Forget the metrics of the previous epoch."""
        self._metrics = {}

    def on_test_begin(self, logs: Any = None) -> None:
        """Sum the training metrics before validation resets them."""
        if self._metrics == {}:
            self._metrics.update(_joint_metrics(self.model))

    def on_test_end(self, logs: Any = None) -> None:
        """Sum the validation metrics."""
        if self._metrics is not None:
            self._metrics.update({f"val_{name}": value for name, value in _joint_metrics(self.model).items()})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Replace the metrics in the logs."""
        metrics = self._metrics or _joint_metrics(self.model)
        self._metrics = None
        own = {name: value for name, value in logs.items() if name not in metrics and isinstance(value, float)}
        logs.update({name: value for name, value in metrics.items() if name in logs})
        if own:
            logs.update(_averages(own))


def _is_loss_of_output(metric: Any) -> bool:
    """Whether Keras keeps the metric for the loss of one of several outputs."""
    return type(metric) is keras.metrics.Mean and metric.name.endswith("_loss")


def _joint_metrics(model: Any) -> dict[str, Any]:
    """Return the results over all ranks; set each metric to the state summed over all ranks."""
    variables = [variable for metric in model.metrics for variable in metric.variables]
    states = [variable.numpy().astype(np.float64) for variable in variables]
    joint = _sum_over_ranks(np.concatenate([state.ravel() for state in states]))
    ends = np.cumsum([state.size for state in states])
    for variable, state, end in zip(variables, states, ends, strict=True):
        variable.assign(joint[end - state.size : end].reshape(state.shape).astype(variable.dtype))
    metrics = {name: np.asarray(value) for name, value in model.get_metrics_result().items()}
    return {name: float(value) if value.ndim == 0 else value for name, value in metrics.items()}


def _averages(metrics: dict[str, float]) -> dict[str, float]:
    names = sorted(metrics)
    sums = _sum_over_ranks(np.array([metrics[name] for name in names], np.float64))
    return {name: float(total) / init().size for name, total in zip(names, sums, strict=True)}


def _sum_over_ranks(values: np.ndarray) -> np.ndarray:
    """Return the sum in rank order, bitwise the same on all ranks."""
    if init().size == 1:
        return values
    from distrain.distribution.collectives.horovod import HorovodGroup

    return np.sum([np.frombuffer(content) for content in HorovodGroup().all_gather_bytes(values.tobytes())], axis=0)
