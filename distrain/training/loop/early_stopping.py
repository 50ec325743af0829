"""Early stopping, and the choice of the best epoch, by any figure of a run.

Decides: which epoch is the best, and whether to finish, from figures that are equal on every rank. Never: saves.

    is_better = better_figure(model, figures, "val_accuracy", mode="auto")
    early_stopping = EarlyStopping(patience=2, monitor="val_accuracy", is_better=is_better)
    TrainingLoop(..., after_epoch=[early_stopping, ...])
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from distrain.errors import ConfigurationError
from distrain.training.loop.events import Decision, StepEvent

IsBetter = Callable[[float, float], bool]  # (figure, best figure so far)


class EarlyStopping:
    """Remembers the epoch with the best figure; finishes after `patience` epochs without a better one.

    Args:
        patience: epochs without a better figure; 0 never finishes.
        state: result of an earlier `state()`, to continue from.
        monitor: name of the figure; None takes the validation loss, or the training loss without validation data.
        is_better: compares a figure with the best so far; default: a lower figure is better.
    """

    def __init__(
        self,
        patience: int,
        state: Mapping[str, Any] | None = None,
        *,
        monitor: str | None = None,
        is_better: IsBetter = operator.lt,
    ) -> None:
        self._patience = patience
        self._monitor = monitor
        self._is_better = is_better
        self.best_metrics: dict[str, Any] = dict(state.get("best_figures", {})) if state else {}
        self.best_step: int | None = state.get("best_step") if state else None
        self._epochs_since = int(state.get("epochs_since", 0)) if state else 0

    def __call__(self, event: StepEvent) -> Decision:
        """Compare the figure of the epoch that just ended with the best figure so far."""
        metrics = event.metrics()
        name = self._monitor or ("val_loss" if "val_loss" in metrics else "loss")
        figure, best = metrics[name], self.best_metrics.get(name)
        self._epochs_since += event.step == event.num_steps  # the part of an epoch before a limit counts for no epoch
        if not math.isnan(figure) and (best is None or isinstance(best, list) or self._is_better(figure, best)):
            self.best_metrics = dict(metrics)
            self.best_step = event.progress.global_step
            self._epochs_since = 0
        return Decision.FINISH if self.is_exhausted() else Decision.GO_ON

    def is_exhausted(self) -> bool:
        """Return whether `patience` epochs have passed without a better figure."""
        return 0 < self._patience <= self._epochs_since

    def reason(self) -> str:
        """Say why an exhausted run ends."""
        return f"{self._monitor} stopped improving" if self._monitor else "the validation loss stopped falling"

    def state(self) -> dict[str, Any]:
        """Return the argument `state` of a later `EarlyStopping`, as a checkpoint stores it."""
        return {
            "best_figures": self.best_metrics,
            "best_step": self.best_step,
            "epochs_since": self._epochs_since,
        }


def better_figure(model: Any, figures: Mapping[str, Any], monitor: str | None, mode: str) -> IsBetter:
    """Return how figures of a name compare: as Keras' own `EarlyStopping` compares them.

    Args:
        model: a compiled Keras model, whose metrics know their direction.
        figures: a value of each figure of the run, by the name that an epoch's metrics have.
        monitor: name of the figure; None for the loss.
        mode: "min", "max" or "auto".

    Raises:
        ConfigurationError: the run has no such figure, or has several numbers for it, or Keras does not know whether
            lower or higher is better.
    """
    import keras

    monitor = monitor or "loss"
    if monitor not in figures:
        raise ConfigurationError(
            f"--monitor {monitor} names no figure of this run. The figures are {', '.join(figures)}."
        )
    if isinstance(figures[monitor], list):
        raise ConfigurationError(
            f"--monitor {monitor} has several numbers, so none of two is the better. Monitor a figure of one number."
        )
    if mode == "auto" and monitor.endswith("_loss"):
        mode = "min"  # Keras knows no direction for the loss of one output
    judge = keras.callbacks.EarlyStopping(monitor, patience=3, mode=mode)
    judge.set_model(model)
    judge.on_train_begin()
    try:
        judge.on_epoch_end(0, {monitor: 0.0})
    except ValueError:
        raise ConfigurationError(
            f"Keras does not know whether a lower or a higher {monitor} is better. Add --mode min or --mode max."
        ) from None
    judge.on_epoch_end(1, {monitor: 1.0})
    return operator.gt if judge.best == 1.0 else operator.lt
