"""Trains by plain Keras over the same global batches, and prints the distance to distrain's weights as JSON.

Keras runs `train_on_batch` alone; distrain defines the order of the examples.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import keras
import models_outside
import numpy as np
import scipy.sparse

import distrain
from distrain.models.ngram_mlp import NgramMLP

G, EPOCHS, SEED, COUNT = 64, 3, 11, 331


def by_keras(model: keras.Model, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> list[np.ndarray]:
    """Return the weights after the epochs by Keras."""
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    for epoch in range(EPOCHS):
        order = distrain.epoch_order(COUNT, seed=SEED, epoch=epoch)
        for start in range(0, COUNT, G):
            chosen = order.examples(range(start, min(start + G, COUNT)))
            model.train_on_batch(x[chosen], y[chosen], None if weights is None else weights[chosen])
    return model.get_weights()


def by_distrain(build_model: Callable[[], keras.Model], *train: Any) -> list[np.ndarray]:
    """Return the weights after the epochs by `distrain.fit`; the last epoch is the best, as its loss is lowest."""
    loss = "sparse_categorical_crossentropy"
    settings = {"global_batch_size": G, "epochs": EPOCHS, "seed": SEED, "devices": "cpu:1"}
    result = distrain.fit(build_model, train, optimizer=keras.optimizers.Adam(1e-2), loss=loss, **settings)
    losses = [epoch["loss"] for epoch in result.history]
    assert losses[-1] == min(losses) < losses[0], losses
    return result.model.get_weights()


def distance(one: list[np.ndarray], two: list[np.ndarray]) -> float:
    """Return the largest difference, relative to the largest weight."""
    return float(max(np.abs(a - b).max() for a, b in zip(one, two, strict=True)) / max(np.abs(a).max() for a in one))


def stock_layers(weighted: bool) -> float:
    """Convolution and dense layers with a penalty on weights, with and without weights of examples."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, COUNT)
    x = (rng.normal(size=(COUNT, 8, 8, 1)) + y[:, None, None, None]).astype(np.float32)
    weights = rng.integers(0, 4, COUNT) if weighted else None
    expected = by_keras(models_outside.image_model(), x, y, weights)
    return distance(expected, by_distrain(models_outside.image_model, x, y, *([weights] if weighted else [])))


def sparse_rows() -> float:
    """`NgramMLP` on sparse rows against stock dense layers on dense rows, from the same first weights."""
    rng = np.random.default_rng(2)
    x = scipy.sparse.random(COUNT, 200, density=0.05, random_state=rng, format="csr", dtype=np.float32)
    y = np.asarray(x[:, :4].argmax(axis=1)).ravel()
    stock = keras.Sequential([keras.layers.Dense(64, "relu"), keras.layers.Dense(4, "softmax")])
    stock.build((None, 200))
    first = stock.get_weights()

    def build_model() -> keras.Model:
        model = NgramMLP(200, 4, dropout=0)
        model.set_weights(first)
        return model

    expected = by_keras(stock, x.toarray(), y)
    return distance(expected, by_distrain(build_model, x, y))


if __name__ == "__main__":
    print(json.dumps({"stock": stock_layers(False), "weighted": stock_layers(True), "sparse": sparse_rows()}))
