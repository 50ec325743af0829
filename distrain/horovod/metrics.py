"""The figures of an epoch over all ranks.

Decides: how the metrics of the ranks become one. Never: which metrics there are, or what is done about them.

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
    """Turn the figures of an epoch into those over all ranks, the same on each.

    Stands before callbacks that read them: `EarlyStopping`, `ReduceLROnPlateau`, `ModelCheckpoint`. Not averages travel
    but the metrics' states, which add up: each example counts once however many a rank has, and AUC or precision are
    what one process would find. Other entries of the logs, as a `train_step` of the user's may give, are averaged
    plainly.

    Exact for validation on `RankBatches(..., training=False)` or on any parts of the examples, one a rank. Exact for
    training where the batches are given; without them the ragged last step counts a little more or less than it
    should. `weighted_metrics` of training see the weights of `RankBatches`, and keep that error in the last step. The
    progress bar and what `fit` hands to `on_train_end` show this rank's own figures.

    Args:
        batches: what `fit` is fed.

    Raises:
        ConfigurationError: at the begin of `fit`: several steps per execution hide the last one.
    """

    def __init__(self, batches: RankBatches | None = None) -> None:
        super().__init__()
        self._batches = batches
        self._before: dict[int, np.ndarray] | None = None
        self._figures: dict[str, Any] | None = None  # of the epoch under way, as far as they are known

    def on_train_begin(self, logs: Any = None) -> None:
        """Check that the last step can be told."""
        if self._batches is not None and self.model.steps_per_execution != 1:
            raise ConfigurationError(
                f"steps_per_execution is {self.model.steps_per_execution}; exact training figures need 1. Set it to 1, "
                "or leave out the batches: MetricAverageCallback()."
            )

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Remember the metrics' states before the last step, which may be ragged."""
        if self._batches is not None and batch == len(self._batches) - 1 and init().size > 1:
            self._before = {id(v): v.numpy() for metric in self.model.metrics for v in metric.variables}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Let the last step count for what it is: Keras took each row that was fed for one example."""
        if self._before is None or self._batches is None:
            return
        num_rows, num_all = self._batches.rows(batch)
        for metric in self.model.metrics:
            counts = 1.0 if num_rows else 0.0
            if metric.name == "loss":  # its total went up by rows x (the joint loss's share of this rank) x size
                counts = num_all / (init().size * max(1, num_rows))
            elif metric.name.endswith("_loss"):  # of one output: Keras counts steps, not examples
                counts = 1.0
            for variable in metric.variables:
                before = self._before.get(id(variable), 0)
                variable.assign(np.asarray(before + counts * (variable.numpy() - before), variable.dtype))
        self._before = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Forget the epoch before."""
        self._figures = {}

    def on_test_begin(self, logs: Any = None) -> None:
        """Take the figures of training before validation resets the metrics."""
        if self._figures == {}:
            self._figures.update(_joint_figures(self.model))

    def on_test_end(self, logs: Any = None) -> None:
        """Take the figures of validation."""
        if self._figures is not None:
            self._figures.update({f"val_{name}": figure for name, figure in _joint_figures(self.model).items()})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Replace the logs' figures."""
        figures = self._figures or _joint_figures(self.model)
        self._figures = None
        own = {name: value for name, value in logs.items() if name not in figures and isinstance(value, float)}
        logs.update({name: figure for name, figure in figures.items() if name in logs})
        if own:
            logs.update(_averages(own))


def _joint_figures(model: Any) -> dict[str, Any]:
    """Figures of the model's metrics over all ranks; the metrics hold the joint states then."""
    variables = [variable for metric in model.metrics for variable in metric.variables]
    states = [variable.numpy().astype(np.float64) for variable in variables]
    joint = _sum_over_ranks(np.concatenate([state.ravel() for state in states]))
    ends = np.cumsum([state.size for state in states])
    for variable, state, end in zip(variables, states, ends, strict=True):
        variable.assign(joint[end - state.size : end].reshape(state.shape).astype(variable.dtype))
    figures = {name: np.asarray(figure) for name, figure in model.get_metrics_result().items()}
    return {name: float(figure) if figure.ndim == 0 else figure for name, figure in figures.items()}


def _averages(figures: dict[str, float]) -> dict[str, float]:
    names = sorted(figures)
    sums = _sum_over_ranks(np.array([figures[name] for name in names], np.float64))
    return {name: float(total) / init().size for name, total in zip(names, sums, strict=True)}


def _sum_over_ranks(values: np.ndarray) -> np.ndarray:
    """Added in rank order: bitwise the same on all ranks."""
    if init().size == 1:
        return values
    from distrain.distribution.collectives.horovod import HorovodGroup

    return np.sum([np.frombuffer(content) for content in HorovodGroup().all_gather_bytes(values.tobytes())], axis=0)
