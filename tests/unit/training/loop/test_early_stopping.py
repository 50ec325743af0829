"""The best epoch and the end of training follow from any figure, as Keras' own callback decides."""

from __future__ import annotations

import json
import operator

import keras
import numpy as np
import pytest
from step_events import step_event

from distrain.errors import ConfigurationError
from distrain.training.loop.early_stopping import EarlyStopping, better_figure
from distrain.training.loop.events import Decision


def judge(action, losses, **others):
    return [action(epoch_event(number + 1, loss=1.0, val_loss=loss, **others)) for number, loss in enumerate(losses)]


def epoch_event(step, **metrics):
    """The event of an epoch that ended at this global step."""
    return step_event(step, num_steps=step, **metrics)


GO_ON, FINISH = Decision.GO_ON, Decision.FINISH


@pytest.mark.parametrize(
    ("patience", "losses", "decisions", "best_step"),
    [
        (2, [3, 2, 1], [GO_ON] * 3, 3),
        (2, [3, 4, 5], [GO_ON, GO_ON, FINISH], 1),
        (2, [3, 4, 2, 3, 3], [GO_ON, GO_ON, GO_ON, GO_ON, FINISH], 3),
        (2, [3, 3, 3], [GO_ON, GO_ON, FINISH], 1),  # as low is not lower
        (1, [3, 4], [GO_ON, FINISH], 1),
        (0, [3, 4, 5, 6], [GO_ON] * 4, 1),
        (2, [float("nan"), 1, float("nan"), float("nan")], [GO_ON, GO_ON, GO_ON, FINISH], 2),
    ],
)
def test_early_stopping(patience, losses, decisions, best_step):
    stopping = EarlyStopping(patience)
    assert judge(stopping, losses) == decisions
    assert stopping.best_step == best_step
    assert stopping.best_metrics["val_loss"] == losses[best_step - 1]


def test_early_stopping_without_validation_goes_by_the_training_loss():
    stopping = EarlyStopping(1)
    assert stopping(epoch_event(1, loss=2.0)) is GO_ON
    assert stopping(epoch_event(2, loss=1.0)) is GO_ON
    assert stopping(epoch_event(3, loss=1.5)) is FINISH
    assert stopping.best_step == 2


def test_the_part_of_an_epoch_counts_for_no_epoch_but_may_be_the_best():
    stopping = EarlyStopping(1)
    assert judge(stopping, [3.0]) == [GO_ON]
    assert stopping(step_event(5, num_steps=9, loss=1.0, val_loss=4.0)) is GO_ON
    assert stopping(step_event(6, num_steps=9, loss=1.0, val_loss=2.0)) is GO_ON
    assert stopping.best_step == 6


@pytest.mark.parametrize("cut", range(6))
def test_early_stopping_goes_on_from_its_state(cut):
    """The state travels through JSON, as a checkpoint has it."""
    losses = [5, 4, 6, 3, 4, 4]
    whole, first = EarlyStopping(2), EarlyStopping(2)
    decisions = judge(whole, losses)
    before = judge(first, losses[:cut])
    second = EarlyStopping(2, json.loads(json.dumps(first.state())))
    after = [second(epoch_event(number + 1, loss=1.0, val_loss=losses[number])) for number in range(cut, 6)]
    assert before + after == decisions == [GO_ON] * 5 + [FINISH]
    assert second.state() == whole.state()


def keras_stops(model, monitor, mode, figures):
    """Return the epochs after which Keras' own callback stops, and its best epoch."""
    callback = keras.callbacks.EarlyStopping(monitor, patience=2, mode=mode)
    callback.set_model(model)
    callback.on_train_begin()
    model.stop_training = False
    stops = []
    for epoch, figure in enumerate(figures):
        callback.on_epoch_end(epoch, {monitor: figure})
        stops.append(model.stop_training)
    return stops, callback.best_epoch


@pytest.fixture(scope="module")
def model():
    """A model whose metrics are built."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, "sigmoid")])
    odd = keras.metrics.MeanMetricWrapper(lambda y, outputs: outputs, name="odd")
    metrics = ["accuracy", "mae", keras.metrics.AUC(name="auc"), odd]
    model.compile("sgd", "binary_crossentropy", metrics=metrics, run_eagerly=True)
    model.train_on_batch(np.zeros((4, 2)), np.array([[0.0], [1.0], [1.0], [0.0]]))
    return model


NAMES = ["loss", "accuracy", "mae", "auc"]
FIGURES = {name: 0.0 for base in NAMES for name in (base, f"val_{base}")}


@pytest.mark.parametrize("monitor", list(FIGURES))
@pytest.mark.parametrize("mode", ["auto", "min", "max"])
def test_a_figure_is_judged_as_by_keras(monitor, mode, model):
    figures = [0.5, 0.75, 0.25, 0.5, 0.75, 0.25, 0.5, 1.0]
    is_better = better_figure(model, FIGURES, monitor, mode)
    stopping = EarlyStopping(2, monitor=monitor, is_better=is_better)
    decisions = [
        stopping(epoch_event(number + 1, **{"loss": 9.0, monitor: figure})) for number, figure in enumerate(figures)
    ]
    stops, best_epoch = keras_stops(model, monitor, mode, figures)
    first = stops.index(True)
    assert decisions[: first + 1] == [GO_ON] * first + [FINISH]
    stopping = EarlyStopping(0, monitor=monitor, is_better=is_better)
    for number, figure in enumerate(figures):
        stopping(epoch_event(number + 1, **{"loss": 9.0, monitor: figure}))
    assert stopping.best_step == best_epoch + 1


@pytest.mark.parametrize("monitor", ["val_acc", "accuracy ", "learning_rate"])
def test_an_unknown_figure_is_refused_with_the_figures_there_are(monitor, model):
    with pytest.raises(ConfigurationError, match=f"--monitor {monitor} names no figure .* loss, val_loss, accuracy"):
        better_figure(model, FIGURES, monitor, "auto")


def test_a_figure_without_a_direction_needs_a_mode(model):
    figures = {**FIGURES, "val_odd": 0.0, "val_left_loss": 0.0, "f1_score": [0.5, 0.25]}
    with pytest.raises(ConfigurationError, match=r"a lower or a higher val_odd is better\. Add --mode min"):
        better_figure(model, figures, "val_odd", "auto")
    assert better_figure(model, figures, "val_odd", "max") is operator.gt
    assert better_figure(model, figures, "val_left_loss", "auto") is operator.lt
    with pytest.raises(ConfigurationError, match="--monitor f1_score has several numbers"):
        better_figure(model, figures, "f1_score", "max")
