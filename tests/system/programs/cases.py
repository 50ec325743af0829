"""Arguments of `distrain.fit` for every kind of input, loss, optimizer and callback; fixed seeds make the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import models_outside
import numpy as np
import scipy.sparse

NUM_EXAMPLES = 331  # 5 steps of 64 and a step of 11 examples, which leaves most of 4 replicas without work
NUM_VALIDATION = 71


def image() -> dict[str, Any]:
    """Dense images, a weight penalty, and a bound on the global norm of the gradients."""
    rng = np.random.default_rng(1)

    def examples(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, 3, count)
        return (rng.normal(size=(count, 8, 8, 1)) + labels[:, None, None, None]).astype(np.float32), labels

    return {
        "build_model": models_outside.image_model,
        "train": examples(NUM_EXAMPLES),
        "validation": examples(NUM_VALIDATION),
        "optimizer": keras.optimizers.Adam(1e-2, global_clipnorm=0.5),
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
    }


def two_inputs() -> dict[str, Any]:
    """A dict of inputs, weighted examples, a learning rate schedule, and metrics with several sums."""
    rng = np.random.default_rng(2)

    def examples(count: int) -> tuple[Any, ...]:
        numbers = rng.normal(size=(count, 4)).astype(np.float32)
        word = rng.integers(0, 11, count)
        labels = ((numbers.sum(axis=1) + word - 5) > 0).astype(np.float32)[:, None]
        return {"numbers": numbers, "word": word}, labels, rng.choice([0, 0.5, 3], count)

    return {
        "build_model": models_outside.TwoInputs,
        "train": examples(NUM_EXAMPLES),
        "validation": examples(NUM_VALIDATION),
        "optimizer": keras.optimizers.RMSprop(keras.optimizers.schedules.ExponentialDecay(1e-2, 4, 0.8)),
        "loss": keras.losses.BinaryCrossentropy(label_smoothing=0.1),
        "metrics": [keras.metrics.AUC(name="auc"), keras.metrics.Precision(name="precision")],
    }


def csr() -> dict[str, Any]:
    """Sparse rows, some of them empty, into stock dense layers; a bound on the norm of each gradient."""
    rng = np.random.default_rng(3)

    def examples(count: int) -> tuple[Any, np.ndarray]:
        matrix = scipy.sparse.random(count, 30, density=0.1, random_state=rng, format="csr", dtype=np.float32)
        return matrix, np.asarray(matrix @ np.arange(30) % 3, np.int64)

    return {
        "build_model": models_outside.rows_model,
        "train": examples(NUM_EXAMPLES),
        "validation": examples(NUM_VALIDATION),
        "optimizer": keras.optimizers.SGD(0.5, momentum=0.9, clipnorm=0.1),
        "loss": keras.losses.SparseCategoricalCrossentropy(),
        "metrics": ["accuracy"],
    }


class Record(keras.callbacks.Callback):
    """Records each call, and stops training after the second epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int, dict[str, float]]] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.seen.append(("step", batch, dict(logs or {})))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        rate = float(self.model.optimizer.learning_rate.numpy())
        self.seen.append(("epoch", epoch, {**(logs or {}), "learning_rate": rate}))
        if epoch == 1:
            self.model.stop_training = True


def callbacks() -> dict[str, Any]:
    """A compiled model with another optimizer, and callbacks that record, change the learning rate and stop."""

    def build_model() -> keras.Model:
        model = models_outside.image_model()
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / (1 + epoch))
    return {
        **image(),
        "build_model": build_model,
        "optimizer": keras.optimizers.SGD(0.05),
        "loss": None,
        "metrics": None,
        "callbacks": [scheduler, Record()],
    }


def mostly_weightless() -> dict[str, Any]:
    """Few examples with weights above zero, so that whole steps weigh nothing."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 130)
    weights = (np.arange(130) < 5).astype(np.float32)
    return {
        "build_model": models_outside.dropout_model,
        "train": (rng.normal(size=(130, 30)).astype(np.float32), labels, weights),
        "optimizer": "adam",
        "loss": "sparse_categorical_crossentropy",
    }


def stock_dropout() -> dict[str, Any]:
    """Keras's own dropout: equal after an interruption, but different at another number of replicas."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, NUM_EXAMPLES)
    rows = (rng.normal(size=(NUM_EXAMPLES, 30)) + labels[:, None]).astype(np.float32)
    return {
        "build_model": models_outside.dropout_model,
        "train": (rows, labels),
        "validation": (rows[:NUM_VALIDATION], labels[:NUM_VALIDATION]),
        "optimizer": "adam",
        "loss": "sparse_categorical_crossentropy",
    }


def seen() -> dict[str, Any]:
    """An example's own weight grows by 1 / (examples of the step) each time a step trains the example."""
    numbers = np.arange(NUM_EXAMPLES)
    return {
        "build_model": lambda: models_outside.OneWeightEach(NUM_EXAMPLES),
        "train": (numbers, numbers),
        "optimizer": keras.optimizers.SGD(1.0),
        "loss": lambda labels, outputs: -outputs,
    }


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    case.__name__: case for case in (image, two_inputs, csr, callbacks, mostly_weightless, stock_dropout, seen)
}
