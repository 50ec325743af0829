"""The same call of `distrain.fit` again: a finished run answers as before, and what changed is named."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import distrain
from distrain.errors import CheckpointError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras, as it saves

rng = np.random.default_rng(0)
X = rng.normal(size=(50, 4)).astype("f4")
Y = X.sum(1, keepdims=True)


def build():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])


def train(run, **more):
    settings = {"validation_data": (X[:20], Y[:20]), "epochs": 2, "verbose": 0, "strategy": "single"}
    return distrain.fit(build, x=X, y=Y, loss="mse", optimizer="sgd", run=run, **{**settings, **more})


def test_a_finished_run_has_the_figures_of_its_epochs(tmp_path):
    first, again = train(tmp_path / "run"), train(tmp_path / "run")
    assert again.keras_history.history == first.keras_history.history
    assert again.keras_history.epoch == first.keras_history.epoch == [0, 1]
    assert again.history == first.history
    longer = train(tmp_path / "run", epochs=3)
    assert longer.history[:2] == first.history
    assert [epoch["loss"] for epoch in longer.history] == longer.keras_history.history["loss"]
    assert longer.keras_history.epoch == [0, 1, 2]


@pytest.mark.parametrize("validation", [(X[:30], Y[:30]), (X[:20], Y[:20] + 1), None])
def test_other_validation_data_is_noticed(validation, tmp_path):
    train(tmp_path / "run", epochs=1)
    with pytest.raises(CheckpointError, match=r"other validation data.* give the same validation data to go on, or"):
        train(tmp_path / "run", validation_data=validation)
