"""One model trained by plain Keras on joined global batches, and by distrain on shares of these batches.

Decides: what both sides get, and what of them is compared. Never: which models exist; `random_models.py` draws them.

    case = random_case(7)
    apart(by_keras(case), by_distrain(case, strategy="single"))       # Apart(weights=3e-8, metrics=1e-7)

Plain Keras is `Model.fit` on the global batches, in the order of `distrain.epoch_order`. Both sides run one callback,
`Recorder`, which keeps weights and logs. So weights, names and figures are those that a user of `fit` sees.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import distrain
from distrain.errors import DistrainError

SEED = 11
FLOOR = 1e-3  # a figure below this is compared as if it had this size


@dataclass(frozen=True)
class Case:
    """A model with its data and with the arguments of `compile` and `fit`.

    Attributes:
        words: what the case consists of.
        build: makes the model with fixed first weights.
        compile: makes the arguments of `Model.compile` anew.
        train: features, labels, and weights if there are any.
        validation: the same for validation, or None.
        fit: further arguments of `Model.fit` and of `distrain.fit`, such as `class_weight`.
        callbacks: makes callbacks anew.
        global_batch_size: examples in a step.
        epochs: number of epochs.
    """

    words: str
    build: Callable[[], Any]
    compile: Callable[[], dict[str, Any]]
    train: tuple[Any, ...]
    validation: tuple[Any, ...] | None = None
    fit: dict[str, Any] = field(default_factory=dict)
    callbacks: Callable[[], list[Any]] = list
    global_batch_size: int = 12
    epochs: int = 3

    def compiled(self) -> Any:
        """Return the compiled model."""
        model = self.build()
        model.compile(**{"jit_compile": False, **self.compile()})
        return model


@dataclass(frozen=True)
class Trained:
    """What a training left, or why it was refused.

    Attributes:
        weights: all weights of the model after each epoch, and at the end of training.
        logs: the logs of each epoch.
        refusal: the sentence of the refusal; empty if the model was trained.
    """

    weights: list[list[np.ndarray]]
    logs: list[dict[str, Any]]
    refusal: str = ""


@dataclass(frozen=True)
class Apart:
    """The distance between two trainings.

    Attributes:
        weights: largest difference of a weight, relative to the largest weight.
        metrics: largest difference of a figure, relative to the figure; infinite if the names differ.
        where: the figure that differs most, or the names that differ.
    """

    weights: float
    metrics: float
    where: str


class Recorder(keras.callbacks.Callback):
    """Keeps weights and logs of each epoch, and the weights at the end of training."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[list[np.ndarray]] = []
        self.logs: list[dict[str, Any]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.weights.append([np.array(weight) for weight in self.model.get_weights()])
        self.logs.append({name: np.array(value) for name, value in (logs or {}).items()})

    def on_train_end(self, logs: Any = None) -> None:
        self.weights.append([np.array(weight) for weight in self.model.get_weights()])


def by_keras(case: Case) -> Trained:
    """Train by `Model.fit` on joined batches."""
    keras.utils.clear_session(free_memory=False)  # else the names of metrics count up from case to case
    recorder = Recorder()
    model = case.compiled()
    # To trace the graphs takes longer than the few steps. But an eager step obeys changes by callbacks at once, and
    # counts the losses of several outputs by examples, not by steps.
    model.run_eagerly = not case.callbacks() and not keras.tree.is_nested(case.train[1])
    if not model.run_eagerly:
        make_metrics(model, case)
    rows = num_rows(case.train)
    validation = {}
    if case.validation is not None:
        validation = {"validation_data": case.validation, "validation_batch_size": case.global_batch_size}
    model.fit(
        joined_batches(case),
        steps_per_epoch=-(-rows // case.global_batch_size),
        epochs=case.epochs,
        callbacks=[*case.callbacks(), recorder],
        verbose=0,
        **validation,
        **case.fit,
    )
    return Trained(recorder.weights, recorder.logs)


def make_metrics(model: Any, case: Case) -> None:
    """Make the variables of the metrics beforehand; else `fit` traces the training step twice."""
    first_example = tf.nest.map_structure(lambda array: array[:1], keras.tree.lists_to_tuples(case.train))
    x, y, weights = keras.utils.unpack_x_y_sample_weight(first_example)
    y_pred = model(x)
    model.compute_loss(x, y, y_pred, weights)
    model.compute_metrics(x, y, y_pred, weights)
    model.reset_metrics()


def by_distrain(case: Case, **settings: Any) -> Trained:
    """Train by `distrain.fit`; a refusal is a result."""
    keras.utils.clear_session(free_memory=False)
    recorder = Recorder()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            distrain.fit(
                case.compiled,
                case.train,
                case.validation,
                callbacks=[*case.callbacks(), recorder],
                run=None,
                seed=SEED,
                epochs=case.epochs,
                global_batch_size=case.global_batch_size,
                **{"jit_compile": False, **case.fit, **settings},
            )
    except DistrainError as error:
        return Trained([], [], str(error))
    return Trained(recorder.weights, recorder.logs)


def joined_batches(case: Case) -> tf.data.Dataset:
    """Return all global batches of all epochs in distrain's order."""
    data = keras.tree.lists_to_tuples(case.train)
    rows = num_rows(data)

    def batches() -> Iterator[Any]:
        for epoch in range(case.epochs):
            order = distrain.epoch_order(rows, seed=SEED, epoch=epoch)
            for start in range(0, rows, case.global_batch_size):
                chosen = order.examples(range(start, min(start + case.global_batch_size, rows)))
                yield tf.nest.map_structure(lambda array, chosen=chosen: array[chosen], data)

    specs = tf.nest.map_structure(lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), data)
    return tf.data.Dataset.from_generator(batches, output_signature=specs)


def num_rows(data: Any) -> int:
    """Return the number of examples of a nest of arrays."""
    return len(tf.nest.flatten(data)[0])


def apart(keras_side: Trained, distrain_side: Trained) -> Apart:
    """Return the largest differences over all epochs."""
    assert not distrain_side.refusal, distrain_side.refusal
    assert len(keras_side.weights) == len(distrain_side.weights)
    weights = max(map(distance, distrain_side.weights, keras_side.weights))
    metrics, where = 0.0, ""
    for right, given in zip(keras_side.logs, distrain_side.logs, strict=True):
        if right.keys() != given.keys():
            return Apart(weights, np.inf, f"keras {sorted(right)}, distrain {sorted(given)}")
        for name, value in right.items():
            difference = relative(np.asarray(given[name], np.float64), np.asarray(value, np.float64))
            if not difference <= metrics:
                metrics, where = difference, f"{name}: keras {value}, distrain {given[name]}"
    return Apart(weights, metrics, where)


def distance(weights: list[np.ndarray], others: list[np.ndarray]) -> float:
    """Return the largest difference, relative to the largest of the other weights."""
    floats = [(a, b) for a, b in zip(weights, others, strict=True) if np.issubdtype(b.dtype, np.floating)]
    largest = max(np.abs(b).max() for _, b in floats)
    return float(max(np.abs(a.astype(np.float64) - b.astype(np.float64)).max() for a, b in floats) / largest)


def relative(value: np.ndarray, right: np.ndarray) -> float:
    """Return the largest difference of two figures, relative to the right one; not finite is equal to itself."""
    if value.shape != right.shape:
        return np.inf
    same = (value == right) | (np.isnan(value) & np.isnan(right))
    return float(np.max(np.where(same, 0.0, np.abs(value - right) / np.maximum(np.abs(right), FLOOR)), initial=0.0))
