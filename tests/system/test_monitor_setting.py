"""`--monitor` chooses the best model and the end of a run, as Keras' EarlyStopping with the same arguments does."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

import distrain
from distrain.errors import CheckpointError, ConfigurationError
from distrain.reporting.run_history import load_run

# Keras reads variables by a way that NumPy will drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RNG = np.random.default_rng(11)
X = RNG.normal(size=(60, 5)).astype("float32")
Y = (X[:, :1] + RNG.normal(size=(60, 1)) > 0).astype("float32")
PARTS = (X[:40], Y[:40]), (X[40:], Y[40:])


def build():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.SGD(2.0), "binary_crossentropy", metrics=["accuracy"])
    return model


@pytest.mark.parametrize(("monitor", "mode"), [("val_accuracy", "auto"), ("accuracy", "auto"), ("val_loss", "max")])
def test_the_best_epoch_and_the_end_are_those_of_keras(monitor, mode, tmp_path):
    run = tmp_path / "run"
    settings = {"epochs": 12, "patience": 2, "global_batch_size": 16, "monitor": monitor, "mode": mode}
    settings |= {"jit_compile": False}  # compiling takes longer than the run
    result = distrain.fit(build, *PARTS, run=run, **settings)
    figures = [epoch[monitor] for epoch in result.history]
    callback = keras.callbacks.EarlyStopping(monitor, patience=2, mode=mode)
    callback.set_model(result.model)
    callback.on_train_begin()
    result.model.stop_training = False
    for epoch, figure in enumerate(figures):
        assert not result.model.stop_training
        callback.on_epoch_end(epoch, {monitor: figure})
    assert result.model.stop_training or len(figures) == 12
    best = result.history[callback.best_epoch]
    assert result.summary["validation_loss"] == best["val_loss"]
    assert result.summary["validation_accuracy"] == best["val_accuracy"]
    loss, _ = result.model.evaluate(*PARTS[1], verbose=0)
    assert loss == pytest.approx(best["val_loss"], rel=1e-5), "the model is the best epoch's"
    assert load_run(run).best_epoch["epoch"] == callback.best_epoch + 1
    stop = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    assert stop["reason"] == (f"{monitor} stopped improving" if len(figures) < 12 else "all epochs are trained")
    with pytest.raises(CheckpointError, match=f"monitor = '{monitor}', not 'loss'"):
        distrain.fit(build, *PARTS, run=run, **{**settings, "monitor": "loss"})


def test_an_unknown_figure_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(ConfigurationError, match=r"val_auc names no .* are loss, accuracy, val_loss, val_accuracy\."):
        distrain.fit(build, *PARTS, run=tmp_path / "run", monitor="val_auc", epochs=1, global_batch_size=16)
    with pytest.raises(ConfigurationError, match=r"val_loss names no figure .* are loss, accuracy\."):
        distrain.fit(build, PARTS[0], run=tmp_path / "other", monitor="val_loss", epochs=1, global_batch_size=16)
    assert not list(tmp_path.glob("*/checkpoints/*"))
