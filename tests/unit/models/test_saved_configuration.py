"""A saved configuration becomes the same model again, and nothing in it can name code from elsewhere."""

from __future__ import annotations

import copy

import keras
import numpy as np
import pytest

from distrain.errors import CheckpointError
from distrain.models.architecture import architecture_of, foreign_part, rebuilt

# Keras reads variables by a way that NumPy will drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def functional():
    inputs = keras.Input((4,))
    x = keras.layers.Dense(6, activation="gelu", kernel_regularizer=keras.regularizers.L2(0.1))(inputs)
    x = keras.ops.relu(x + 1.0)
    x = keras.layers.Bidirectional(keras.layers.LSTM(2))(keras.layers.Reshape((3, 2))(x))
    model = keras.Model(inputs, keras.layers.Dense(1, activation=keras.activations.sigmoid)(x))
    rate = keras.optimizers.schedules.CosineDecay(0.1, 10)
    metrics = [keras.metrics.AUC(), keras.metrics.binary_accuracy]
    model.compile(keras.optimizers.Adam(rate, use_ema=True), keras.losses.binary_crossentropy, metrics=metrics)
    return model


def built_later():
    model = keras.Sequential([keras.layers.Dense(3), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.build((None, 4))
    return model


@pytest.mark.parametrize("make", [functional, built_later])
def test_a_model_of_keras_parts_is_rebuilt(make):
    model = make()
    saved = architecture_of(model)
    assert foreign_part(saved) is None
    again = rebuilt(saved)
    again.set_weights(model.get_weights())
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    assert np.array_equal(again(x), model(x))
    assert again.compiled
    assert again.get_compile_config()["loss"] == model.get_compile_config()["loss"]
    assert again.optimizer.use_ema == model.optimizer.use_ema


class Tower(keras.layers.Layer):
    """A layer of a user's own."""

    def call(self, inputs):
        return inputs


def wrapped():
    return keras.layers.TimeDistributed(Tower())


def own_loss(labels, outputs):
    return keras.ops.mean(outputs)


def of(*layers, **compiled):
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])
    model.compile(**{"optimizer": "sgd", "loss": "mse", **compiled})
    return model


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: of(Tower()), "test_saved_configuration.Tower"),
        (lambda: of(keras.layers.Lambda(lambda x: x)), "keras.layers.Lambda"),
        (
            lambda: of(keras.layers.Reshape((4, 1)), keras.layers.TimeDistributed(Tower())),
            "test_saved_configuration.Tower",
        ),
        (lambda: of(loss=own_loss), "builtins.own_loss"),
        (lambda: of(keras.layers.Dense(1, activation=own_loss)), "builtins.own_loss"),
    ],
)
def test_code_of_a_user_is_foreign(make, name):
    assert foreign_part(architecture_of(make())) == name


def test_a_model_that_keras_cannot_save_has_no_architecture():
    class Odd(keras.Model):
        def get_config(self):
            raise RuntimeError("no arguments")

    assert architecture_of(Odd()) is None


def part(class_name, module="keras.layers", config=None, registered_name=None):
    return {"class_name": class_name, "module": module, "config": config or {}, "registered_name": registered_name}


FORGED = [
    part("system", "os"),
    part("Popen", "subprocess"),
    part("function", "os", "system"),
    part("function", "builtins", "eval"),
    part("function", "keras.utils", "get_file"),
    part("function", "keras.losses", "deserialize"),
    part("function", "keras.saving", "load_model"),
    part("function", "builtins", ["relu"]),
    part("get_file", "keras.utils"),
    part("Lambda"),
    part("TFSMLayer"),
    part("TorchModuleWrapper"),
    part("JaxLayer"),
    part("Path", "keras.src.saving.saving_lib"),
    part("Dense", "keras_hub.models"),
    part("Dense", "mine"),
    part("Dense", None),
    part("Dense", ["keras.layers"]),
    part(["Dense"]),
    part("Dense", registered_name="test>Registered"),
    part("__lambda__", config={"value": "abc"}),
    part("__typespec__", "tensorflow"),
    {"class_name": "Dense", "config": {}},
]


@keras.saving.register_keras_serializable("test")
class Registered(keras.layers.Layer):
    """A class that some package registered, which distrain does not know."""


def put(forged, place, saved):
    """A copy of a saved configuration with a forged part."""
    saved = copy.deepcopy(saved)
    layers, compiled = saved["config"]["layers"], saved["compile_config"]
    if place == "layer":
        layers[1] = forged
    elif place == "argument":
        layers[1]["config"]["kernel_initializer"] = forged
    elif place == "loss":
        compiled["loss"] = forged
    elif place == "metric":
        compiled["metrics"] = [forged]
    elif place == "rate":
        compiled["optimizer"]["config"]["learning_rate"] = forged
    else:
        saved["note"] = [[{"deep": [forged]}]]
    return saved


@pytest.mark.parametrize("place", ["layer", "argument", "loss", "metric", "rate", "value"])
def test_a_forged_part_is_foreign_wherever_it_stands(saved, place):
    for forged in FORGED:
        assert foreign_part(put(forged, place, saved)) is not None, forged
        with pytest.raises(AssertionError):
            rebuilt(put(forged, place, saved))


@pytest.fixture(scope="module")
def saved():
    return architecture_of(functional())


@pytest.mark.parametrize(
    "damaged", [{}, [], "a", None, part("Dense"), part("Functional", "keras.src.models.functional")]
)
def test_a_damaged_configuration_is_an_error_of_the_checkpoint(damaged):
    with pytest.raises(CheckpointError, match="configuration of the model is damaged"):
        rebuilt(damaged)


def test_a_configuration_of_any_depth_is_looked_through():
    deep = part("system", "os")
    for _ in range(100_000):
        deep = [deep]
    assert foreign_part(deep) == "os.system"
