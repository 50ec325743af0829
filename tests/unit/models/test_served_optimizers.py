"""Optimizers that Keras itself cannot run on several devices of a process are refused before the first step."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf

from distrain.errors import ConfigurationError
from distrain.models.build import user_model


def linear():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])


def averaging():
    return keras.optimizers.SGD(use_ema=True, ema_overwrite_frequency=3)


def test_overwriting_by_averages_is_refused_on_several_devices_of_a_process():
    assert user_model(linear, optimizer=averaging(), loss="mse").optimizer.ema_overwrite_frequency == 3
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        with pytest.raises(ConfigurationError, match=r"ema_overwrite_frequency.* start a process per device"):
            user_model(linear, optimizer=averaging, loss="mse")
        user_model(linear, optimizer=lambda: keras.optimizers.SGD(use_ema=True), loss="mse")
