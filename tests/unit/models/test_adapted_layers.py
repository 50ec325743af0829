"""What `adapt` learned is part of a model that is rebuilt from a configuration and from arrays."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from distrain.models.architecture import architecture_of, rebuilt
from distrain.models.build import user_model
from distrain.models.state import ModelState
from distrain.runs.checkpoint import Checkpoint

# Keras reads variables by a way that NumPy will drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NUMBERS = np.random.default_rng(0).normal(40, 5, (30, 4)).astype("float32")
WORDS = np.random.default_rng(1).choice([3, 5, 8, 13, 21], (30, 4))
LAYERS = keras.layers


def adapted(layer, data):
    layer.adapt(data)
    return layer


def normalized():
    inner = keras.Sequential([keras.Input((4,)), adapted(LAYERS.Normalization(), NUMBERS), LAYERS.Dense(3)])
    return keras.Sequential([keras.Input((4,)), inner, adapted(LAYERS.Normalization(axis=None), NUMBERS)])


def binned():
    return keras.Sequential([keras.Input((4,)), adapted(LAYERS.Discretization(num_bins=3), NUMBERS), LAYERS.Dense(1)])


def looked_up(**options):
    layer = adapted(LAYERS.IntegerLookup(**options), WORDS)
    return keras.Sequential([keras.Input((4,), dtype="int64"), layer, LAYERS.Rescaling(0.5), LAYERS.Dense(1)])


LOOKUPS = {
    "numbers": {},
    "a mask": {"mask_token": 3, "max_tokens": 5, "num_oov_indices": 2},
    "many-hot": {"output_mode": "multi_hot"},
    "weights of words": {"output_mode": "tf_idf"},
    "weights of words and padding": {"output_mode": "tf_idf", "max_tokens": 9, "pad_to_max_tokens": True},
}


def compiled(build):
    return user_model(build, choose_optimizer=lambda own: own or keras.optimizers.SGD(), loss="mse")


def outputs_of(model, inputs):
    return np.asarray(model(inputs))


def again(model):
    """Return the model of a saved configuration and saved arrays, as another process makes it."""
    saved = Checkpoint(Path("step-1"), ModelState(model).arrays(), {})
    twin = rebuilt(json.loads(json.dumps(architecture_of(model))))
    twin.build(model.input_shape)
    ModelState(twin).restore(saved)
    return twin


@pytest.mark.parametrize("build", [normalized, binned])
def test_what_a_layer_learned_of_numbers_is_rebuilt(build):
    model = compiled(build)
    assert np.array_equal(outputs_of(again(model), NUMBERS), outputs_of(model, NUMBERS))


@pytest.mark.parametrize("name", LOOKUPS)
def test_a_learned_vocabulary_is_rebuilt_and_saved(name, tmp_path):
    words = np.concatenate([WORDS, [[3, 4, 5, 900]]])  # 4 and 900 are unknown
    model = compiled(lambda: looked_up(**LOOKUPS[name]))
    outputs = outputs_of(model, words)
    assert np.unique(outputs[:-1]).size > 5
    assert np.allclose(outputs_of(again(model), words), outputs, rtol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert np.allclose(outputs_of(loaded, words), outputs, rtol=1e-6)


def test_a_model_that_takes_the_arrays_of_another_normalizes_as_the_other():
    """Ranks may adapt to different data; all take the arrays of the chief."""
    first, second = (
        keras.Sequential([keras.Input((4,)), adapted(LAYERS.Normalization(), NUMBERS + shift)]) for shift in (0, 7)
    )
    ModelState(second).restore(Checkpoint(Path("step-1"), ModelState(first).arrays(), {}))
    assert np.array_equal(outputs_of(second, NUMBERS), outputs_of(first, NUMBERS))


def test_given_values_stay():
    layers = [LAYERS.Normalization(mean=2.0, variance=4.0), LAYERS.IntegerLookup(vocabulary=[2, 4, 1])]
    model = compiled(lambda: keras.Sequential([keras.Input((1,)), *layers]))
    assert outputs_of(again(model), np.array([[10.0]])) == [[2]]
