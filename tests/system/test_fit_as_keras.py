"""`distrain.fit` as a Keras user expects it: against `Model.fit`, and the ends of a script."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
from commands import ENVIRONMENT
from preloaded import preloaded_python

import distrain
from distrain.errors import ConfigurationError, StopRequested

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras, as it saves

rng = np.random.default_rng(0)
X = rng.normal(size=(50, 4)).astype("f4")
Y = (X.sum(1, keepdims=True) > 0).astype("f4")
PROGRAM = Path(__file__).parent / "programs" / "fit_script.py"


def build():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid", kernel_initializer="ones")])


def train(model=build, **more):
    settings = {"loss": "binary_crossentropy", "global_batch_size": 8, "epochs": 3, "verbose": 0, "strategy": "single"}
    settings |= {"jit_compile": False}  # compiling takes longer than the run
    return distrain.fit(model, x=X, y=Y, optimizer=keras.optimizers.SGD(0.1), **{**settings, **more})


def keras_fit(**more):
    model = build()
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    return model, model.fit(X, Y, batch_size=8, epochs=3, verbose=0, **more)


@pytest.mark.parametrize(
    "arguments",
    [
        {"validation_split": 0.25},
        {"validation_split": 0.3, "class_weight": {0: 2.0, 1: 0.5}},
        {"validation_data": (X[:9], Y[:9]), "sample_weight": np.linspace(0, 2, 50)},
        {"callbacks": keras.callbacks.LambdaCallback()},
    ],
)
def test_arguments_of_keras_train_what_keras_trains(arguments):
    result = train(shuffle=False, **arguments)
    model, history = keras_fit(shuffle=False, **arguments)
    assert result.keras_history.params == history.params
    assert result.keras_history.epoch == history.epoch
    assert result.keras_history.history.keys() == history.history.keys()
    for name, values in history.history.items():
        np.testing.assert_allclose(result.keras_history.history[name], values, rtol=1e-5)
        np.testing.assert_allclose([epoch[name] for epoch in result.history], values, rtol=1e-5)
    for own, theirs in zip(result.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-5)


def test_a_model_in_place_of_a_builder_is_trained_itself():
    model = build()
    model.set_weights([np.full((4, 1), 0.5), np.full(1, 0.25)])
    before = build()
    before.set_weights(model.get_weights())
    result = train(model, shuffle=False)
    assert result.model is model
    before.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    before.fit(X, Y, batch_size=8, epochs=3, verbose=0, shuffle=False)
    np.testing.assert_allclose(model.get_weights()[0], before.get_weights()[0], rtol=1e-5)


def test_a_model_for_several_replicas_is_refused(monkeypatch):
    with pytest.raises(ConfigurationError, match="give a function that builds"):
        train(build(), devices="cpu:2", strategy="mirrored")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(ConfigurationError, match="give a function that builds"):
        train(build())


def test_the_random_numbers_of_the_user_go_on():
    np.random.seed(3)  # noqa: NPY002 - the generator of the user's script
    random.seed(3)
    expected = np.random.rand(), random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    drawn = []
    train(lambda: drawn.append((np.random.rand(), random.random())) or build())  # noqa: NPY002
    assert (np.random.rand(), random.random()) == expected  # noqa: NPY002
    train(lambda: drawn.append((np.random.rand(), random.random())) or build())  # noqa: NPY002
    assert drawn[0] == drawn[1], "a builder draws the same numbers in each run"


@pytest.mark.parametrize("verbose", [0, 2])
def test_verbose(verbose, capsys):
    train(verbose=verbose)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:9] for line in lines if line.startswith("epoch")] == (
        [] if verbose == 0 else ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    )
    assert (lines == []) == (verbose == 0)


def test_backup_and_restore_is_refused_before_a_run_directory_is_made(tmp_path):
    with pytest.raises(ConfigurationError, match=r"BackupAndRestore would load its own backup.*run=DIRECTORY"):
        train(callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup")], run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def script(what, *arguments):
    command = [*preloaded_python(), str(PROGRAM), what, *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)


def last_lines(text):
    return [line for line in text.splitlines() if line.startswith(("distrain: ", "Traceback", "caught", "ValueError"))]


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_a_script_with_42_and_no_traceback(number, tmp_path):
    ended = script(number, tmp_path / "run")
    saved = "with everything saved. Run the same command again to go on."
    assert last_lines(ended.stderr) == [f"distrain: stopped: Stopped by {number} at step 3, {saved}"]
    assert ended.returncode == 42


def test_a_stopped_script_without_run_directory_promises_nothing_and_keeps_the_model():
    ended = script("caught")
    assert ended.returncode == 0, ended.stderr
    assert "Run the same command again" not in ended.stdout + ended.stderr
    assert "Nothing stays on disk without run=DIRECTORY" in ended.stdout
    assert "the model moved: True" in ended.stdout


def test_errors_of_a_script_end_it_by_their_exit_codes():
    ended = script("refused")
    assert last_lines(ended.stderr)[0].startswith("distrain: error: initial_epoch=3 is not served")
    assert (ended.returncode, len(last_lines(ended.stderr))) == (2, 1)
    ended = script("own error")
    assert last_lines(ended.stderr) == ["Traceback (most recent call last):", "ValueError: of the user"]
    assert ended.returncode == 1


def test_a_stop_can_be_caught():
    assert issubclass(StopRequested, Exception)
    assert StopRequested("").result is None
