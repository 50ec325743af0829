"""Models that train in a way that distrain does not are refused, in a sentence that names the way on."""

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


@pytest.mark.parametrize(
    "name", ["train_step", "test_step", "make_train_function", "make_test_function", "fit", "evaluate"]
)
def test_a_step_of_its_own_is_refused_and_inherited_ones_are_not(name):
    own = type("Own", (keras.Sequential,), {name: lambda self, *arguments, **more: None})
    with pytest.raises(
        ConfigurationError, match=rf"Own has its own {name}, .* Override compute_loss .*distrain\.horovod"
    ):
        user_model(lambda: own([keras.layers.Dense(1)]), loss="mse")
    assert user_model(lambda: type("Plain", (keras.Sequential,), {})([keras.layers.Dense(1)]), loss="mse").compiled


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"run_eagerly": True}, "run_eagerly"), ({"steps_per_execution": 3}, "--steps-per-execution")],
)
def test_arguments_of_compile_that_are_not_served_are_refused(arguments, words):
    def build():
        model = linear()
        model.compile("sgd", "mse", **arguments)
        return model

    with pytest.raises(ConfigurationError, match=words):
        user_model(build)
