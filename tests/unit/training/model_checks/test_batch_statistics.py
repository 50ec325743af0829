"""Layers whose statistics depend on how a batch is divided; many replicas are in tests/multiprocess."""

from __future__ import annotations

import re
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from distrain.batch import Batch, feeding
from distrain.distribution.single import SingleDevice
from distrain.errors import ConfigurationError
from distrain.training.model_checks.batch_statistics import share_batch_statistics

X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def replicas(number):
    return SimpleNamespace(num_replicas=number, forward_sum=SingleDevice().forward_sum)


def normalizing(**settings):
    return keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(**settings)])


def fed(num_rows):
    return Batch(X, (), (), 0, 0, tf.constant(num_rows, tf.int32), 6, None)


@pytest.mark.parametrize(
    ("synchronized", "num_replicas", "accumulation_steps", "message"),
    [
        (False, 1, 1, None),
        (True, 1, 1, None),
        (True, 3, 1, None),
        (False, 3, 1, r"of its own microbatch alone: .* replicas \(3\) .* steps \(1\)\. .*synchronized=True"),
        (False, 1, 2, r"of its own microbatch alone: .* replicas \(1\) .* steps \(2\)\. .*synchronized=True"),
        (True, 3, 2, r"of one of 2 microbatches: .*accumulation_steps 1"),
    ],
)
def test_a_run_says_when_its_model_depends_on_its_division(synchronized, num_replicas, accumulation_steps, message):
    model = keras.Sequential([keras.Input((3,)), normalizing(synchronized=synchronized)])
    said = share_batch_statistics(model, replicas(num_replicas), accumulation_steps)
    assert (said is None) == (message is None)
    if message:
        assert re.search(message, said)
        assert "(batch_normalization" in said


def test_spectral_normalization_depends_on_accumulation_alone():
    model = keras.Sequential([keras.Input((3,)), keras.layers.SpectralNormalization(keras.layers.Dense(2))])
    assert share_batch_statistics(model, replicas(3), 1) is None
    assert "each of 2 microbatches of a step" in share_batch_statistics(model, replicas(1), 2)


def test_nothing_is_said_of_a_frozen_layer():
    model = normalizing()
    model.trainable = False
    assert share_batch_statistics(model, replicas(3), 1) is None


def test_a_stateful_layer_is_refused_where_a_batch_is_divided():
    model = keras.Sequential(
        [keras.Input((4, 3), batch_size=2), keras.layers.Bidirectional(keras.layers.LSTM(2, stateful=True))]
    )
    assert share_batch_statistics(model, replicas(1), 1) is None
    with pytest.raises(ConfigurationError, match=r"'(for|back)ward_lstm.*' is stateful.*stateful=False"):
        share_batch_statistics(model, replicas(2), 1)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras reads its own variables so
def test_outside_a_step_the_layer_is_that_of_keras(tmp_path):
    models = [normalizing(synchronized=True) for _ in range(2)]
    share_batch_statistics(models[0], replicas(3), 1)
    models[0].save(tmp_path / "model.keras")
    for model in models:
        model.compile("sgd", "mse", run_eagerly=True)
        model.fit(X, X, shuffle=False, verbose=0)
    for own, wanted in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(own, wanted)
    assert keras.models.load_model(tmp_path / "model.keras").layers[0].synchronized


def test_examples_of_an_idle_replica_change_no_moving_average():
    model = normalizing(synchronized=True, momentum=0.5)
    share_batch_statistics(model, replicas(1), 1)
    with feeding(fed(0)):
        model(X, training=True)
    np.testing.assert_array_equal(model.get_weights()[2:], [[0, 0, 0], [1, 1, 1]])
    with feeding(fed(6)):
        model(X, training=True)
    np.testing.assert_allclose(model.get_weights()[2:], [X.mean(0) / 2, (X.var(0) + 1) / 2], rtol=1e-5)


def test_a_renamed_hook_of_keras_ends_the_run(monkeypatch):
    model = normalizing(synchronized=True)
    monkeypatch.delattr(keras.layers.BatchNormalization, "_moments")
    with pytest.raises(ConfigurationError, match=r"keras 3\..* has no BatchNormalization\._moments.*3\.15"):
        share_batch_statistics(model, replicas(2), 1)
