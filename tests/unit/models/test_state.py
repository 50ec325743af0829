"""The state of models whose weights are of types that files know, and of others."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from distrain.models.state import ModelState
from distrain.runs.checkpoint import Checkpoint, pack_checkpoint, unpack_checkpoint


def model_of(dtype, seed):
    initial = keras.initializers.RandomNormal(seed=seed)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, kernel_initializer=initial, dtype=dtype)])
    optimizer = keras.optimizers.SGD(momentum=0.9)
    optimizer.build(model.trainable_variables)
    return model, optimizer


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "mixed_float16"])
def test_a_state_comes_back_as_it_was(dtype):
    model, optimizer = model_of(dtype, seed=1)
    optimizer.apply([np.full(v.shape, 0.3) for v in model.trainable_variables])
    own = ModelState(model, optimizer)
    state = {**own.layout(), "step": 1}
    found = unpack_checkpoint(pack_checkpoint(Checkpoint(Path("step-1"), own.arrays(), state)))
    other_model, other_optimizer = model_of(dtype, seed=2)
    other = ModelState(other_model, other_optimizer)
    assert other.weights_digest() != own.weights_digest()
    other.restore(found)
    assert other.weights_digest() == own.weights_digest()
    for mine, theirs in zip(optimizer.variables, other_optimizer.variables, strict=True):
        assert mine.dtype == theirs.dtype
        assert mine.numpy().tobytes() == theirs.numpy().tobytes()
