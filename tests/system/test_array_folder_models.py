"""A folder of arrays feeds models whose inputs and outputs have names or positions, as Keras' own `fit` feeds them."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import distrain
from distrain.config import TrainConfig
from distrain.training.jobs.job import open_job
from distrain.training.run import run_job

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras, as it saves

RANDOM = np.random.default_rng(3)
ROWS = 19
ARRAYS = {
    "a": RANDOM.normal(size=(ROWS, 4)).astype(np.float32),
    "b": RANDOM.normal(size=(ROWS, 2)).astype(np.float32),
    "price": RANDOM.normal(size=(ROWS, 1)).astype(np.float32),
    "kind": RANDOM.integers(0, 3, ROWS),
    "weights.price": RANDOM.uniform(0, 2, ROWS).astype(np.float32),
    "weights.kind": RANDOM.uniform(0, 2, (ROWS, 1)).astype(np.float32),
}
LOSSES = {"price": "mse", "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}


def functional(container):
    inputs = {name: keras.Input(ARRAYS[name].shape[1:], name=name) for name in "ab"}
    joined = keras.layers.Concatenate()(list(inputs.values()))
    outputs = {"price": keras.layers.Dense(1, name="price")(joined), "kind": keras.layers.Dense(3, name="kind")(joined)}
    as_given = dict if container is dict else lambda nest: list(nest.values())
    return keras.Model(as_given(inputs), as_given(outputs))


class ByPosition(keras.Model):
    """A subclassed model, which takes a list and gives a list."""

    def __init__(self):
        super().__init__()
        self.price, self.kind = keras.layers.Dense(1), keras.layers.Dense(3)

    def call(self, inputs):
        a, b = inputs
        joined = keras.ops.concatenate([a, b], axis=1)
        return [self.price(joined), self.kind(joined)]


CASES = {
    "dicts by name": (lambda: functional(dict), True, LOSSES),
    "lists by name": (lambda: functional(list), True, LOSSES),
    "lists by position": (lambda: functional(list), False, list(LOSSES.values())),
    "subclassed by position": (ByPosition, False, list(LOSSES.values())),
}


def compiled(case):
    make, _, losses = CASES[case]
    keras.utils.set_random_seed(5)
    model = make()
    model.compile(keras.optimizers.SGD(0.1), losses)
    return model


@pytest.mark.parametrize("case", CASES)
def test_a_folder_trains_the_weights_of_keras(case, tmp_path, monkeypatch):
    _, by_name, _ = CASES[case]
    names = {"x": ["a", "b"], "y": ["price", "kind"], "weights": ["price", "kind"]}
    if case == "lists by name":
        del names["weights"]  # Keras itself takes no dict of weights for a list of outputs
    for kind, keys in names.items():
        for position, key in enumerate(keys):
            array = ARRAYS[f"weights.{key}" if kind == "weights" else key]
            np.save(tmp_path / f"train.{kind}.{key if by_name else position}.npy", array)
    config = TrainConfig(
        data=tmp_path, run=tmp_path / "run", model="this:build", epochs=2, batch_size=8, devices="cpu:1"
    )
    monkeypatch.setattr("distrain.training.jobs.job.find_function", lambda name: lambda: compiled(case))
    trained = run_job(lambda: open_job(config), config).model

    witness = compiled(case)
    rows = {
        kind: {key: ARRAYS[f"weights.{key}" if kind == "weights" else key] for key in keys}
        for kind, keys in names.items()
    }
    for epoch in range(2):
        order = distrain.epoch_order(ROWS, seed=config.seed, epoch=epoch)
        for start in range(0, ROWS, 8):
            chosen = order.examples(range(start, min(start + 8, ROWS)))
            nests = [{key: array[chosen] for key, array in arrays.items()} for arrays in rows.values()]
            witness.train_on_batch(*(nests if by_name else [list(nest.values()) for nest in nests]))
    for own, wanted in zip(trained.get_weights(), witness.get_weights(), strict=True):
        np.testing.assert_allclose(own, wanted, atol=1e-6)
