"""The state of models whose weights are of types that files know, and of others."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from distrain.models.state import ModelState, as_array
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


@pytest.mark.parametrize("shape", [(), (4, 2)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bool", "int64"])
def test_values_of_all_shapes_and_types_are_read(dtype, shape):
    array = as_array(keras.Variable(np.ones(shape), dtype=dtype))
    assert (array.shape, array.dtype) == (shape, "float32" if dtype == "bfloat16" else dtype)
    assert array.all()


def test_a_value_stays_what_it_was_through_each_kind_of_update():
    variable = tf.Variable(tf.zeros((100, 8)))
    ones, row = tf.ones((100, 8)), tf.ones((1, 8))
    updates = [
        lambda: variable.assign(ones),
        lambda: variable.assign_add(ones),
        tf.function(lambda: variable.assign_add(ones), jit_compile=True),
        lambda: variable.scatter_add(tf.IndexedSlices(row, tf.constant([2]))),
        lambda: variable.scatter_nd_update([[3]], 5 * row),
        lambda: variable[4].assign(7 * row[0]),
        lambda: variable.assign_sub(ones),
        tf.function(lambda: variable.assign_sub(ones), jit_compile=True),
    ]
    for number, update in enumerate(updates):
        value = as_array(variable)
        before = value.copy()
        update()
        assert np.array_equal(value, before), number
        assert not np.array_equal(as_array(variable), before), number
        assert not value.flags.writeable
