"""Which steps a run compiles."""

from __future__ import annotations

import importlib

import keras
import numpy as np
import pytest

import distrain
from distrain.training.steps import step

# Keras reads variables by a way that NumPy will drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

EXAMPLES = (np.ones((4, 2), np.float32), np.ones((4, 1), np.float32))


@pytest.mark.parametrize(("validation", "count"), [(None, 0), (EXAMPLES, 1)], ids=["without", "with"])
def test_an_evaluation_step_is_compiled_for_validation_data_alone(validation, count, monkeypatch):
    """To trace a step that no run calls takes 10 to 20% of a short run."""
    importlib.import_module("distrain.training.model_checks.shares")  # which keeps the function as it is
    made, compiled = step.make_evaluate_step, []

    def make_evaluate_step(*args, **settings):
        compiled.append(args)
        return made(*args, **settings)

    def build():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    monkeypatch.setattr(step, "make_evaluate_step", make_evaluate_step)
    distrain.fit(build, EXAMPLES, validation, epochs=1, global_batch_size=4, devices="cpu:1", jit_compile=False)
    assert len(compiled) == count
