"""Two devices of one process train the model of one device, and hand it over for use by Keras."""

from __future__ import annotations

import json

import numpy as np
import pytest
from commands import SYSTEM, run_python


@pytest.fixture(scope="module")
def found():
    done = run_python(SYSTEM / "programs" / "mirrored_models.py")
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["excluding", "scaled"])
@pytest.mark.parametrize("way", ["given", "compiled"])
def test_an_optimizer_made_before_keeps_what_no_configuration_holds(name, way, found):
    """An exclusion from decay and an unregistered schedule."""
    assert found[f"{name}, {way}"] <= 1e-6


@pytest.mark.parametrize("rows", [1, 3, 25])
def test_keras_evaluates_the_trained_model_on_any_number_of_rows(rows, found):
    assert found[f"evaluate {rows}"] <= 1e-5
    assert found[f"predict {rows}"] <= 1e-5


def test_a_callback_evaluates_the_model_on_any_number_of_rows(found):
    alone, mirrored = found["in callbacks"]
    assert alone[0] != alone[1]
    np.testing.assert_allclose(mirrored, alone, rtol=1e-4)


def test_keras_does_not_train_the_model_without_summing_gradients(found):
    assert "distrain.fit again" in found["fit"]


def test_all_devices_end_with_the_mean_of_their_states(found):
    first, second = found["running means"]
    assert first == second
    assert np.abs(first).max() > 1e-4
