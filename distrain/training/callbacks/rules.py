"""Which callbacks of a user run on which ranks, and which callback a run refuses.

Decides: the ranks of each callback. Never: when a callback is called, or what it does.

    >>> RULES["CSVLogger"]
    'chief'
    >>> [name for name, rule in RULES.items() if rule == "refused"]
    ['BackupAndRestore']

A callback that is none of Keras' own runs on every rank, unless it has a true attribute `chief_only`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distrain.errors import ConfigurationError

# Every callback of `keras.callbacks` that a user may pass, by name.
RULES = {
    "BackupAndRestore": "refused",
    "CSVLogger": "chief",
    "EarlyStopping": "every rank",
    "History": "every rank",
    "LambdaCallback": "every rank",
    "LearningRateScheduler": "every rank",
    "ModelCheckpoint": "chief",
    "OrbaxCheckpoint": "chief",
    "ProgbarLogger": "chief",
    "ReduceLROnPlateau": "every rank",
    "RemoteMonitor": "chief",
    "SwapEMAWeights": "every rank",
    "TensorBoard": "chief",
    "TerminateOnNaN": "every rank",
}

BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")


def flat_callbacks(callbacks: Any) -> list[Any]:
    """Return the callbacks of what `Model.fit` takes: a callback, a nest of callbacks, a `CallbackList`, or None.

    Raises:
        ConfigurationError: something is no Keras callback, or is a callback that a run refuses.
    """
    found = list(_callbacks_in(callbacks))
    for callback in found:
        if any(isinstance(callback, kind) for kind in _kinds("refused")):
            raise ConfigurationError(
                f"callbacks: {type(callback).__name__} would load its own backup over the weights that distrain "
                "restores. Leave it out: with run=DIRECTORY, the same call goes on where it stopped."
            )
    return found


def runs_here(callback: Any, *, is_chief: bool) -> bool:
    """Return whether a callback runs on this rank."""
    chief_only = getattr(callback, "chief_only", None)
    if chief_only is None:
        chief_only = any(isinstance(callback, kind) for kind in _kinds("chief"))
    return is_chief or not chief_only


def overrides(callback: Any, *hooks: str) -> bool:
    """Return whether a callback has any of these methods of its own, as a class or as an object."""
    from keras.callbacks import Callback

    return any(hook in vars(callback) or getattr(type(callback), hook) is not getattr(Callback, hook) for hook in hooks)


def may_stop_in_batch(callback: Any) -> bool:
    """Return whether a callback sees batches, and so may set `stop_training` at one; Keras' file writers never do."""
    is_writer = type(callback) in _kinds("chief")
    return not is_writer and overrides(callback, *BATCH_HOOKS)


def _kinds(rule: str) -> tuple[type, ...]:
    from keras import callbacks

    return tuple(getattr(callbacks, name) for name, of_name in RULES.items() if of_name == rule)


def _callbacks_in(callbacks: Any) -> Iterator[Any]:
    import keras

    for each in [] if callbacks is None else keras.tree.flatten(callbacks):
        if isinstance(each, keras.callbacks.CallbackList):
            yield from _callbacks_in(each.callbacks)
        elif isinstance(each, keras.callbacks.Callback):
            yield each
        else:
            raise ConfigurationError(
                f"callbacks: {each!r} is of type {type(each).__name__}; give objects of keras.callbacks.Callback."
            )
