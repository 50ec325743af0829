"""Each of Keras' callbacks: a run that is interrupted and resumed ends as an uninterrupted one, and as `Model.fit`."""

from __future__ import annotations

import csv
import importlib.util
import os
import signal
from functools import cache

import keras
import numpy as np
import pytest

import distrain
from distrain.errors import StopRequested
from distrain.training.callbacks.rules import RULES, runs_here

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras reads variables so
    pytest.mark.filterwarnings("ignore:Could not reach RemoteMonitor:UserWarning"),  # nobody listens
]

rng = np.random.default_rng(0)
X = rng.normal(size=(24, 3)).astype("f4")
Y = (X.sum(1, keepdims=True) * 2 + rng.normal(size=(24, 1))).astype("f4")
EPOCHS, BATCH = 5, 5  # 5 steps an epoch, the last one ragged
OCCASIONS = [("batch", 2), ("test", 1), ("epoch", 1)]  # in mid-epoch, in an evaluation, at the end of an epoch

MAKE = {
    "CSVLogger": lambda folder: keras.callbacks.CSVLogger(folder / "log.csv"),
    "EarlyStopping": lambda folder: keras.callbacks.EarlyStopping(
        patience=2, min_delta=100.0, restore_best_weights=True, monitor="val_mae", mode="min"
    ),
    "History": lambda folder: keras.callbacks.History(),
    "LambdaCallback": lambda folder: keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: None),
    "LearningRateScheduler": lambda folder: keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5),
    "ModelCheckpoint": lambda folder: keras.callbacks.ModelCheckpoint(
        folder / "{epoch}.weights.h5", save_best_only=True, save_weights_only=True
    ),
    "ProgbarLogger": lambda folder: keras.callbacks.ProgbarLogger(),
    "ReduceLROnPlateau": lambda folder: keras.callbacks.ReduceLROnPlateau(
        factor=0.5, patience=2, min_delta=100.0, cooldown=1
    ),
    "RemoteMonitor": lambda folder: keras.callbacks.RemoteMonitor("http://localhost:9"),
    "SwapEMAWeights": lambda folder: keras.callbacks.SwapEMAWeights(),
    "TensorBoard": lambda folder: keras.callbacks.TensorBoard(folder / "events", write_graph=False),
    "TerminateOnNaN": lambda folder: keras.callbacks.TerminateOnNaN(),
}


class Counts(keras.callbacks.Callback):
    """Numbers of the batches that it saw, and values of every kind that a checkpoint holds."""

    seen = ()  # a tuple stays with its process

    def on_train_begin(self, logs=None):
        self.batches, self.figures, self.total, self.sums = [], {}, np.zeros(2), [np.zeros(1)]

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(batch)
        self.figures[str(len(self.batches))] = logs["loss"]
        self.total = self.total + 1
        self.sums[0] += batch


# Callbacks that change neither training nor each other, so all of them watch the same runs.
STEERING = {"EarlyStopping", "LearningRateScheduler", "ReduceLROnPlateau", "SwapEMAWeights"}
WATCHING = {name: make for name, make in MAKE.items() if name not in STEERING}
WATCHING["Counts"] = lambda folder: Counts()
RATES = ("LearningRateScheduler", "ReduceLROnPlateau")  # both change the learning rate of the same runs
TOGETHER = {name: names for names in (tuple(WATCHING), RATES) for name in names}


def build():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])


def compiling(name):
    swaps = name == "SwapEMAWeights"
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9, use_ema=swaps, ema_momentum=0.5)
    return {"optimizer": optimizer, "loss": "mse", "metrics": ["mae"]}


def interruption(occasion, number):
    """A callback that sends this process a signal once: it has no state that a checkpoint could hold."""
    left = [number]

    def send(*arguments):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGUSR1)

    hooks = {"batch": "on_train_batch_end", "test": "on_test_batch_begin", "epoch": "on_epoch_end"}
    return type("Interruption", (keras.callbacks.Callback,), {hooks[occasion]: lambda self, *_, **__: send()})()


def train(make, folder, compiled, occasions=()):
    """Train until the end, interrupted at each occasion; return the result and the callbacks of the last process.

    `make` has functions that make a callback for a folder, by name.
    """
    folder.mkdir()
    settings = {"run": folder / "run", "epochs": EPOCHS, "global_batch_size": BATCH, "strategy": "single"}
    settings |= {"shuffle": False, "jit_compile": False}
    for occasion in [*occasions, None]:
        made = {name: make_one(folder) for name, make_one in make.items()}
        callbacks = [*made.values(), *([interruption(*occasion)] if occasion else [])]
        try:
            result = distrain.fit(build, (X, Y), (X, Y), callbacks=callbacks, **compiling(compiled), **settings)
        except StopRequested:
            if "CSVLogger" in made:
                made["CSVLogger"].csv_file.close()  # as the end of a process does; TensorBoard holds its neighbours
            continue
        assert occasion is None, "the run was not interrupted"
    return result, made


def test_every_callback_of_keras_has_its_rule_and_its_case():
    exported = {name for name in dir(keras.callbacks) if name[0].isupper()} - {"Callback", "CallbackList"}
    assert exported == set(RULES)
    assert exported - set(MAKE) == {"BackupAndRestore", "OrbaxCheckpoint"}  # refused; its package is not installed
    orbax = object.__new__(keras.callbacks.OrbaxCheckpoint)
    assert (runs_here(orbax, is_chief=True), runs_here(orbax, is_chief=False)) == (True, False)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """`ran(name, "whole")` returns the result of a run, the callback of that name, and the run's folder.

    Each occasion interrupts the run `ran(name, "stopped")`.
    """
    folder = tmp_path_factory.mktemp("ran")

    @cache
    def group(names, way):
        of_run = folder / f"{names[0]}-{way}"
        make = {**MAKE, **WATCHING}
        occasions = OCCASIONS if way == "stopped" else ()
        return *train({name: make[name] for name in names}, of_run, names[0], occasions), of_run

    def of(name, way):
        result, made, of_run = group(TOGETHER.get(name, (name,)), way)
        return result, made[name], of_run

    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("tensorboard") is None:  # the callback writes by this function of TensorFlow
            summary = keras.callbacks.TensorBoard(folder).summary
            patch.setattr(summary, "scalar", lambda *arguments, **settings: True)
        yield of


@pytest.mark.parametrize("name", MAKE)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(name, ran):
    whole, one, folder_of_one = ran(name, "whole")
    stopped, two, folder_of_two = ran(name, "stopped")
    for a, b in zip(whole.model.get_weights(), stopped.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert whole.keras_history.history == stopped.keras_history.history
    assert whole.keras_history.epoch == stopped.keras_history.epoch
    assert whole.summary["weights_sha256"] == stopped.summary["weights_sha256"]
    for attribute in ("wait", "best", "cooldown_counter", "stopped_epoch", "best_epoch", "min_delta"):
        assert getattr(one, attribute, None) == getattr(two, attribute, None), attribute
    files = [sorted(path.name for path in of_run.glob("*.h5")) for of_run in (folder_of_one, folder_of_two)]
    assert files[0] == files[1]


@pytest.mark.parametrize("names", [("EarlyStopping",), RATES, ("SwapEMAWeights",)])
def test_a_resumed_run_has_the_history_of_keras(names, ran, tmp_path):
    name = names[0]
    resumed, _, _ = ran(name, "stopped")
    model = build()
    model.compile(**compiling(name))
    settings = {"batch_size": BATCH, "epochs": EPOCHS, "validation_data": (X, Y), "shuffle": False, "verbose": 0}
    history = model.fit(X, Y, callbacks=[MAKE[each](tmp_path) for each in names], **settings)
    assert resumed.keras_history.epoch == history.epoch
    assert resumed.keras_history.history.keys() == history.history.keys()
    assert resumed.history[-1].keys() == history.history.keys(), "with what callbacks add, such as the learning rate"
    for figure, values in history.history.items():
        np.testing.assert_allclose(resumed.keras_history.history[figure], values, rtol=1e-4, err_msg=figure)
    if name == "EarlyStopping":  # on_train_end restores the best weights, by another figure than distrain's own
        np.testing.assert_allclose(resumed.model.get_weights()[0], model.get_weights()[0], rtol=1e-4)


def test_a_log_file_goes_on(ran):
    _, _, folder = ran("CSVLogger", "stopped")
    with (folder / "log.csv").open() as file:
        assert [int(line["epoch"]) for line in csv.DictReader(file)] == list(range(EPOCHS))


def test_batches_keep_their_numbers_and_a_callback_of_ones_own_its_state(ran):
    _, counts, _ = ran("Counts", "stopped")
    _, witness, _ = ran("Counts", "whole")
    assert counts.batches == list(range(5)) * EPOCHS
    assert counts.figures == witness.figures
    assert (counts.total.tolist(), counts.sums[0].tolist()) == ([25.0, 25.0], [50.0])


class EndsInBatch(keras.callbacks.Callback):
    """Ends training in mid-epoch, at its third batch of the second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = (self.epoch, batch) == (1, 2)


@pytest.fixture(scope="module")
def ended_by_keras():
    """The model that Keras trains until a callback ends training in a batch, and its history."""
    model = build()
    model.compile(**compiling("Ends"))
    settings = {"batch_size": BATCH, "epochs": EPOCHS, "validation_data": (X, Y), "shuffle": False, "verbose": 0}
    return model, model.fit(X, Y, callbacks=[EndsInBatch()], **settings)


@pytest.mark.parametrize("occasions", [[], [("batch", 2)], [("batch", 7)]])
def test_a_stop_in_a_batch_is_that_of_keras_wherever_the_run_was_interrupted(occasions, tmp_path, ended_by_keras):
    result, _ = train({"Ends": lambda folder: EndsInBatch()}, tmp_path / "own", "Ends", occasions)
    model, history = ended_by_keras
    assert result.summary["global_steps"] == model.optimizer.iterations.numpy() == 8
    assert result.keras_history.epoch == history.epoch == [0, 1]
    np.testing.assert_allclose(result.keras_history.history["val_loss"], history.history["val_loss"], rtol=1e-4)
