"""Keras callbacks of a user, called from the loop in the same order as `Model.fit` calls them.

Decides: when each method of a callback is called, and when its state is saved and restored. Never: what a callback
does.

    callbacks = KerasCallbacks([keras.callbacks.LambdaCallback(...)], model=model, group=group, num_epochs=3,
                               num_steps=10)
    callbacks.before_training(progress, restored, restore_variables)
    TrainingLoop(..., before_epoch=callbacks.before_epoch, train_steps=callbacks.around_steps(train_steps),
                 after_step=[callbacks.after_step], after_epoch=[callbacks.after_epoch])

A run without callbacks has Keras' `History` alone, which sees no steps: its steps cost nothing more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from distrain.cluster.agreement import max_over_ranks
from distrain.cluster.error_relay import run_on_all_ranks
from distrain.cluster.process_group import ProcessGroup
from distrain.errors import CheckpointError, ConfigurationError
from distrain.keras_backend.private_names import knows_direction
from distrain.runs.checkpoint import Checkpoint
from distrain.runs.progress import Progress
from distrain.training.callbacks.rules import BATCH_HOOKS, flat_callbacks, may_stop_in_batch, overrides, runs_here
from distrain.training.callbacks.state import attributes_of, changed, packed, restore, unpacked
from distrain.training.loop.events import Decision, StepEvent

_LOG = logging.getLogger(__name__)

_TEST_HOOKS = ("on_test_batch_begin", "on_test_batch_end")


class KerasCallbacks:
    """Calls the callbacks of this rank, and Keras' `History`.

    Args:
        callbacks: what `Model.fit` takes as `callbacks`.
        model: the model that the callbacks see, compiled with its optimizer.
        group: all ranks, which agree when a callback of one rank stops training.
        num_epochs: the callbacks' parameter `epochs`.
        num_steps: the callbacks' parameter `steps`.
        verbose: the callbacks' parameter `verbose`.

    Attributes:
        sees_steps: whether a callback of this rank has a method that is called at each step.
        stops_after_step: whether a callback stopped training before the first step of the epoch, on all ranks alike.

    Raises:
        ConfigurationError: a callback is refused.
    """

    def __init__(
        self,
        callbacks: Any,
        *,
        model: Any,
        group: ProcessGroup,
        num_epochs: int,
        num_steps: int,
        verbose: int | str = 0,
    ) -> None:
        import keras

        given = flat_callbacks(callbacks)
        here = [callback for callback in given if runs_here(callback, is_chief=group.is_chief)]
        params = {"epochs": num_epochs, "steps": num_steps, "verbose": verbose}
        self._list = keras.callbacks.CallbackList(here, model=model, add_history=True, **params)
        self._model = model
        self._group = group
        self._names = _names([*given, *(each for each in self._list.callbacks if each not in given)])
        self.sees_steps = any(overrides(callback, *BATCH_HOOKS) for callback in here)
        self._sees_test_steps = any(overrides(callback, *_TEST_HOOKS) for callback in here)
        self._ends_training = any(overrides(callback, "on_train_end") for callback in here)
        self._agrees_each_step = bool(max_over_ranks(group, int(any(map(may_stop_in_batch, given)))))
        self._agrees_each_epoch = bool(max_over_ranks(group, int(bool(given))))
        self.stops_after_step = False
        self._step = 0
        self._resume: Callable[[], None] | None = None
        self._baseline: dict[str, Any] = {}
        self.replaced_weights = False

    @property
    def history(self) -> Any:
        """The `keras.callbacks.History` of the run, epochs before a resume included."""
        import keras

        return next(each for each in self._list.callbacks if isinstance(each, keras.callbacks.History))

    def restore_history(self, restored: Checkpoint) -> list[dict[str, Any]]:
        """Give `history` the epochs of a checkpoint; return the figures of each epoch."""
        state = restored.state.get("callbacks", {})
        states = unpacked(state.get("attributes", {}), restored.arrays)
        self.history.epoch = []
        restore(self.history, states.get(self._names[id(self.history)], {}))
        epochs, figures = self.history.epoch, self.history.history
        if not (isinstance(epochs, list) and isinstance(figures, dict) and all(map(_is_list, figures.values()))):
            raise CheckpointError(f"{restored.path} holds a history of epochs that is forged or damaged.")
        whole = {name: values for name, values in figures.items() if len(values) == len(epochs)}
        return [{name: values[at] for name, values in whole.items()} for at in range(len(epochs))]

    def add_figures(self, history: list[dict[str, Any]]) -> None:
        """Add what callbacks added to the figures of the last epoch, such as the learning rate, as Keras' fit does."""
        added = {name: values[-1] for name, values in self.history.history.items() if name not in history[-1]}
        history[-1].update(added)

    def before_training(
        self, progress: Progress, restored: Checkpoint | None, restore_variables: Callable[[], None]
    ) -> None:
        """Call `on_train_begin`, and restore the callbacks' state.

        Args:
            progress: where training starts.
            restored: the checkpoint to resume from, or None.
            restore_variables: restores the variables of model and optimizer, which `on_train_begin` may have changed.

        Raises:
            ConfigurationError: a callback monitors a figure whose better direction nobody knows; on all ranks.
        """
        import keras

        self._model.stop_training = False
        if restored is not None:
            for callback in self._list.callbacks:
                if isinstance(callback, keras.callbacks.CSVLogger):
                    callback.append = True  # the lines of the epochs before stand in the file
        run_on_all_ranks(self._group, self._require_directions)
        self._list.on_train_begin()
        self._baseline = {self._names[id(each)]: attributes_of(each) for each in self._list.callbacks}
        self._step = progress.epoch_steps
        if restored is None:
            return

        def resume() -> None:
            self._restore_state(restored, in_epoch=progress.position > 0)
            restore_variables()

        if progress.position:
            self._resume = resume  # after the epoch's on_epoch_begin, whose effects the checkpoint holds
        else:
            resume()

    def _require_directions(self) -> None:
        for callback in self._list.callbacks:
            if not knows_direction(callback):
                raise ConfigurationError(
                    f"callbacks: {type(callback).__name__} monitors {callback.monitor!r}, of which Keras does not know "
                    'the better direction. Give the callback mode="max" or mode="min".'
                )

    def before_epoch(self, epoch: int) -> Decision:
        """Call `on_epoch_begin`; finish the epoch at once if a callback had stopped it before the checkpoint."""
        self._list.on_epoch_begin(epoch)
        decision = Decision.GO_ON
        if self._resume is not None:
            self._resume()
            self._resume = None
            decision = Decision.FINISH if self._model.stop_training else Decision.GO_ON
        self.stops_after_step = self._agrees_each_epoch and self._agreed() is Decision.FINISH
        return decision

    def around_steps(self, train_steps: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return `train_steps` preceded by `on_train_batch_begin`; as in Keras, once per call of several steps."""
        if not self.sees_steps:
            return train_steps

        def run(steps: Any) -> Any:
            self._list.on_train_batch_begin(self._step)
            return train_steps(steps)

        return run

    def around_evaluation(self, evaluate: Callable[[], Any]) -> Callable[[], Any]:
        """Return `evaluate` between `on_test_begin` and `on_test_end`."""

        def run() -> Any:
            self._list.on_test_begin()
            metrics = evaluate()
            if metrics is not None:  # None: a request to stop interrupted the evaluation
                self._list.on_test_end(metrics)
            return metrics

        return run

    def around_evaluation_step(
        self, evaluate_step: Callable[[Any], Any], metrics_of: Callable[[Any], Mapping[str, float]]
    ) -> Callable[[Any], Any]:
        """Return a function for the steps of one evaluation: `on_test_batch_begin`, `evaluate_step`, `..._end`."""
        if not self._sees_test_steps:
            return evaluate_step
        totals: list[np.ndarray] = []
        number = 0

        def run(batches: Any) -> Any:
            nonlocal number
            self._list.on_test_batch_begin(number)
            sums = evaluate_step(batches)
            added = [np.asarray(value, np.float64) for value in sums]
            totals[:] = [a + b for a, b in zip(totals, added, strict=True)] if totals else added
            self._list.on_test_batch_end(number, dict(metrics_of(totals)))
            number += 1
            if getattr(self._model, "stop_evaluating", False):
                raise ConfigurationError(
                    "a callback set model.stop_evaluating, which distrain does not serve: an evaluation reads every "
                    "example. Give less validation data, or limit_batches for a dry run."
                )
            return sums

        return run

    def after_step(self, event: StepEvent) -> Decision:
        """Call `on_train_batch_end`; finish the epoch and training if a callback set `model.stop_training`."""
        if self.sees_steps:
            self._list.on_train_batch_end(event.step - 1, dict(event.metrics()))
        self._step = event.step % event.num_steps
        # on_train_begin and on_epoch_begin stop training after one batch, as in Keras; later batches need a hook.
        is_first = event.step == event.new_steps
        if self._group.size > 1 and not self._agrees_each_step and not (is_first and self._agrees_each_epoch):
            return Decision.GO_ON
        return self._agreed()

    def after_epoch(self, event: StepEvent) -> Decision:
        """Call `on_epoch_end`; finish if a callback set `model.stop_training`."""
        self._list.on_epoch_end(event.epoch, dict(event.metrics()))
        return self._agreed() if self._agrees_each_epoch else Decision.GO_ON

    def after_training(self, metrics: Mapping[str, float], weights_digest: Callable[[], str]) -> None:
        """Call `on_train_end`, and note in `replaced_weights` whether a callback set the weights there."""
        before = weights_digest() if self._ends_training else ""
        self._list.on_train_end(dict(metrics))
        self.replaced_weights = self._ends_training and weights_digest() != before

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the state of this rank's callbacks, as JSON values and arrays of a checkpoint."""
        changes = {}
        for callback in self._list.callbacks:
            name = self._names[id(callback)]
            changes[name] = changed(self._baseline.get(name, {}), attributes_of(callback))
        values, arrays = packed({name: attributes for name, attributes in changes.items() if attributes})
        return {"stop_training": bool(self._model.stop_training), "attributes": values}, arrays

    def _restore_state(self, restored: Checkpoint, *, in_epoch: bool) -> None:
        state = restored.state.get("callbacks", {})
        states = unpacked(state.get("attributes", {}), restored.arrays)
        for callback in self._list.callbacks:
            lost = restore(callback, states.pop(self._names[id(callback)], {}))
            if lost and not _is_of_keras(callback) and self._group.is_chief:
                _LOG.warning(
                    f"Callback {type(callback).__name__}: {', '.join(lost)} could not be saved and starts anew. "
                    "A checkpoint holds numbers, text, lists, dicts and arrays."
                )
        if states and self._group.is_chief:
            _LOG.warning(f"The checkpoint has states of callbacks that are gone: {', '.join(sorted(states))}.")
        self._model.stop_training = in_epoch and bool(state.get("stop_training", False))

    def _agreed(self) -> Decision:
        self._model.stop_training = bool(max_over_ranks(self._group, int(bool(self._model.stop_training))))
        return Decision.FINISH if self._model.stop_training else Decision.GO_ON


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_of_keras(callback: Any) -> bool:
    return type(callback).__module__.split(".")[0] == "keras"


def _names(callbacks: Sequence[Any]) -> dict[int, str]:
    """Return a name of each callback by its id: its class, and its number among the callbacks of that class."""
    counts: dict[str, int] = {}
    names = {}
    for callback in callbacks:
        kind = type(callback).__name__
        names[id(callback)] = f"{kind}.{counts.get(kind, 0)}"
        counts[kind] = counts.get(kind, 0) + 1
    return names
