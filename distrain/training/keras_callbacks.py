"""Keras callbacks of a user, called from the loop in the same order as `Model.fit` calls them.

Decides: when each method of a callback is called. Never: what a callback does.

    callbacks = KerasCallbacks([keras.callbacks.LambdaCallback(...)], model=model, num_epochs=3, num_steps=10)
    TrainingLoop(..., before_epoch=callbacks.before_epoch, train_steps=callbacks.around_steps(train_steps),
                 after_step=[callbacks.after_step], after_epoch=[callbacks.after_epoch])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from distrain.training.events import Decision, StepEvent


class KerasCallbacks:
    """Calls a user's Keras callbacks from the loop; does nothing if there are none.

    Args:
        callbacks: `keras.callbacks.Callback` objects.
        model: the model that the callbacks see, compiled with its optimizer.
        num_epochs: the callbacks' parameter `epochs`.
        num_steps: the callbacks' parameter `steps`.
    """

    def __init__(self, callbacks: list[Any], *, model: Any, num_epochs: int, num_steps: int) -> None:
        self._list = None
        self._model = model
        self._step = 0
        if callbacks:
            import keras

            params = {"epochs": num_epochs, "steps": num_steps, "verbose": 0}
            self._list = keras.callbacks.CallbackList(list(callbacks), model=model, **params)

    def before_training(self) -> None:
        """Call `on_train_begin`."""
        if self._list:
            self._model.stop_training = False
            self._list.on_train_begin()

    def before_epoch(self, epoch: int) -> None:
        """Call `on_epoch_begin`."""
        if self._list:
            self._list.on_epoch_begin(epoch)

    def around_steps(self, train_steps: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return `train_steps` preceded by `on_train_batch_begin`; as in Keras, once per call of several steps."""
        if not self._list:
            return train_steps
        callbacks = self._list

        def run(steps: Any) -> Any:
            callbacks.on_train_batch_begin(self._step)
            return train_steps(steps)

        return run

    def around_evaluation(self, evaluate: Callable[[], Any]) -> Callable[[], Any]:
        """Return `evaluate` between `on_test_begin` and `on_test_end`."""
        if not self._list:
            return evaluate
        callbacks = self._list

        def run() -> Any:
            callbacks.on_test_begin()
            metrics = evaluate()
            callbacks.on_test_end(metrics)
            return metrics

        return run

    def after_step(self, event: StepEvent) -> None:
        """Call `on_train_batch_end`."""
        if self._list:
            self._list.on_train_batch_end(event.step - 1, dict(event.metrics()))
            self._step = event.step % event.num_steps

    def after_epoch(self, event: StepEvent) -> Decision | None:
        """Call `on_epoch_end`; finish if a callback set `model.stop_training`."""
        if not self._list:
            return None
        self._list.on_epoch_end(event.epoch, dict(event.metrics()))
        return Decision.FINISH if self._model.stop_training else None

    def after_training(self, metrics: Mapping[str, float]) -> None:
        """Call `on_train_end`."""
        if self._list:
            self._list.on_train_end(dict(metrics))
