"""Keras' arguments of `fit` become examples, or are refused in a sentence that names the way on."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest

from distrain.config import TrainConfig
from distrain.errors import ConfigurationError
from distrain.training.fit import _cache_progress, fit
from distrain.training.jobs.fit_arguments import REFUSED, examples_of, refuse_arguments, train_and_validation

X, Y = np.arange(40, dtype="f4").reshape(20, 2), np.arange(20) % 3


def rows_of(examples):
    return examples.load(np.array([[0, examples.num_examples]]), np.arange(examples.num_examples))(
        0, examples.num_examples
    )


def test_every_argument_of_model_fit_is_served_or_refused():
    served = {*inspect.signature(fit).parameters, *TrainConfig.__dataclass_fields__}
    arguments = set(inspect.signature(keras.Model.fit).parameters) - {"self"}
    assert arguments <= served | set(REFUSED)
    assert not served & set(REFUSED)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("initial_epoch", 2),
        ("steps_per_epoch", 5),
        ("validation_steps", 1),
        ("validation_batch_size", 7),
        ("validation_freq", 2),
        ("validation_freq", [1, 3]),
        ("run_eagerly", True),
        ("auto_scale_loss", False),
    ],
)
def test_a_refusal_names_argument_value_and_way_on(name, value):
    with pytest.raises(ConfigurationError) as refused:
        refuse_arguments({name: value})
    assert str(refused.value).startswith(f"{name}={value!r} is not served by distrain.fit: ")
    assert REFUSED[name][1] in str(refused.value)


def test_the_default_of_a_refused_argument_changes_nothing():
    defaults = {name: default for name, (default, _) in REFUSED.items()}
    assert refuse_arguments({**defaults, "epochs": 3}) == {"epochs": 3}
    of_fit = inspect.signature(keras.Model.fit).parameters
    assert all(of_fit[name].default == default for name, default in defaults.items() if name in of_fit)


@pytest.mark.parametrize("fraction", [0.01, 0.25, 0.3, 0.5, 0.999])
def test_a_validation_split_takes_the_rows_that_keras_takes(fraction):
    seen = []

    class Rows(keras.callbacks.Callback):
        def on_test_end(self, logs=None):
            seen.append(logs["loss"])

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    try:
        model.fit(X, Y[:, None], validation_split=fraction, verbose=0, callbacks=[Rows()])
    except ValueError:
        with pytest.raises(ConfigurationError, match="leaves one part of 20 examples empty"):
            examples_of((X, Y), None, validation_split=fraction)
        return
    train, validation = examples_of((X, Y), None, validation_split=fraction)
    features, labels, _ = rows_of(validation)
    assert train.num_examples + validation.num_examples == 20
    assert np.mean((features.sum(1) - labels) ** 2) == pytest.approx(seen[0], rel=1e-5)


def test_class_weights_are_those_of_keras_and_validation_has_none():
    train, validation = examples_of((X, Y), (X, Y), class_weight={0: 2.0, 2: 0.5})
    np.testing.assert_array_equal(rows_of(train)[2], np.array([2.0, 1.0, 0.5])[Y])
    assert rows_of(validation)[2] == ()
    balanced, _ = examples_of((X, Y), None, class_weight="balanced")
    np.testing.assert_allclose(rows_of(balanced)[2], (20 / (3 * np.bincount(Y)))[Y])


def test_sample_weights_are_the_third_element():
    weights = np.linspace(0, 1, 20)
    named, _ = examples_of((X, Y), None, sample_weight=weights)
    third, _ = examples_of((X, Y, weights), None)
    np.testing.assert_array_equal(rows_of(named)[2], rows_of(third)[2])
    assert named.digest == third.digest


@pytest.mark.parametrize(
    ("train", "validation", "more", "words"),
    [
        ((X, Y, Y), None, {"sample_weight": Y}, "the weights are given twice"),
        ((X, Y, Y), None, {"class_weight": {0: 1.0}}, "class_weight and sample weights"),
        ((X, Y), (X, Y), {"validation_split": 0.5}, "leave one of them out"),
        ((X, Y), None, {"validation_split": 1.5}, "above 0 and below 1"),
        ((X, Y), None, {"class_weight": 3}, "give a dict"),
    ],
)
def test_contradictions_are_refused(train, validation, more, words):
    with pytest.raises(ConfigurationError, match=words):
        examples_of(train, validation, **more)


@pytest.mark.parametrize("verbose", [0, 1])
def test_a_cache_tells_now_and_then_how_much_is_written(tmp_path, capsys, monkeypatch, verbose):
    monkeypatch.setattr("distrain.data.by_position.element_stream.MAX_BLOCK", 100)
    source = [([float(number)], 0) for number in range(250)]
    for interval, lines in ((-1.0, 3), (60.0, 1)):
        monkeypatch.setattr("distrain.training.fit.CACHE_LINE_SECONDS", interval)
        examples_of(source, None, cache=tmp_path / f"{lines}", progress=_cache_progress(verbose))
        found = capsys.readouterr().out.splitlines()
        assert len(found) == (lines if verbose else 0)
        assert not verbose or found[0] == "cache: train, 100 of 250 examples written"


def test_data_by_the_names_of_keras():
    assert train_and_validation(None, None, X, Y, (X, Y)) == ((X, Y), (X, Y))
    with pytest.raises(ConfigurationError, match=r"has length 1.*without labels, y is None"):
        examples_of((X,), None)
    for given in [(None, None, None, None, None), ((X, Y), None, X, None, None), ((X, Y), None, None, Y, None)]:
        with pytest.raises(ConfigurationError, match="give the training data once"):
            train_and_validation(*given)
    with pytest.raises(ConfigurationError, match="two names of one argument"):
        train_and_validation((X, Y), (X, Y), None, None, (X, Y))


@pytest.mark.parametrize("name", ["addam", {"class_name": "Nothing"}])
def test_an_optimizer_that_keras_lacks_is_named(name):
    build = lambda: keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])  # noqa: E731
    with pytest.raises(ConfigurationError, match=r"optimizer=.* is none of Keras' optimizers"):
        fit(build, (X, Y), loss="mse", optimizer=name, strategy="single", epochs=1)


def test_validation_data_that_the_model_does_not_take_is_named_in_one_line():
    build = lambda: keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])  # noqa: E731
    with pytest.raises(ConfigurationError, match=r"does not take the data, float32\[2, 1\]: Input 0 ") as refused:
        fit(build, (X, Y), (X[:, :1], Y), loss="mse", strategy="single", epochs=1, verbose=0)
    assert "\n" not in str(refused.value)
    assert "\x1b" not in str(refused.value)
