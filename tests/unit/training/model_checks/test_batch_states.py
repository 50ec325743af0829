"""Variables that follow the examples of a batch; tests/system/test_mirrored_models.py has replicas on devices."""

from __future__ import annotations

from contextlib import nullcontext

import keras
import numpy as np
import pytest
from odd_layers import Centred, Counter, RunningMean, Watching

from distrain.batch import feeding
from distrain.data.sources import array_examples
from distrain.models.layers import PositionalDropout
from distrain.training.model_checks.batch_states import batch_states, dependence_on_replicas
from distrain.training.model_checks.shares import shares_of
from distrain.training.steps.task import make_task

LAYERS = keras.layers
RANDOM = np.random.default_rng(0)
EXAMPLES = array_examples(RANDOM.normal(size=(9, 3)).astype("float32"), RANDOM.normal(size=(9, 1)).astype("float32"))


def task_of(*layers):
    def build():
        model = keras.Sequential([keras.Input((3,)), *layers, LAYERS.Dense(1)])
        model.compile("sgd", "mse")
        return model

    (sample,) = shares_of(EXAMPLES, 2, 2)
    return make_task(build, sample, scope=nullcontext(), num_columns={})


@pytest.mark.parametrize(
    ("layer", "names"),
    [
        (lambda: RunningMean(), {"mean"}),
        (lambda: LAYERS.BatchNormalization(), {"moving_mean", "moving_variance"}),
        (lambda: LAYERS.BatchNormalization(synchronized=True), set()),
        (lambda: LAYERS.BatchNormalization(trainable=False), set()),
        (lambda: Counter(), set()),
        (lambda: Watching(), set()),
        (lambda: LAYERS.Dropout(0.5, seed=1), set()),
        (lambda: LAYERS.SpectralNormalization(LAYERS.Dense(2)), set()),  # its state follows the kernel alone
        (lambda: LAYERS.Dense(2, trainable=False), set()),
        (lambda: keras.Sequential([RunningMean(), PositionalDropout(0.5, seed=1, stream=0)]), {"mean"}),
    ],
)
def test_a_state_is_found_by_what_examples_change(layer, names):
    task = task_of(layer())
    before = task.model.get_weights()
    assert {state.name for state in batch_states(task, EXAMPLES)} == names
    for now, then in zip(task.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_example_of_an_idle_replica_changes_no_state():
    task = task_of(RunningMean(), Counter())
    (mean,) = batch_states(task, EXAMPLES)
    count = next(v for v in task.model.non_trainable_variables if v.name == "calls")
    metrics = task.metrics.beside([mean])
    (share,) = shares_of(EXAMPLES, 5, 5)
    with feeding(share._replace(num_rows=np.int32(0))), metrics.scope():
        task.model(share.features, training=True)
    assert (mean.numpy() == 0).all()
    assert count.numpy() == 1  # as on the other replicas
    with feeding(share), metrics.scope():
        task.model(share.features, training=True)
    np.testing.assert_allclose(mean.numpy(), 0.1 * np.asarray(share.features).mean(0), rtol=1e-5)


def test_a_run_names_the_state_of_a_users_layer_where_a_batch_is_divided():
    task = task_of(RunningMean(name="running"), LAYERS.BatchNormalization())
    states = batch_states(task, EXAMPLES)
    assert len(states) == 3
    said = dependence_on_replicas(states, task, EXAMPLES, num_replicas=3, accumulation_steps=1)
    assert "running/mean' follows" in said
    assert "replicas (3)" in said
    assert dependence_on_replicas(states, task, EXAMPLES, num_replicas=1, accumulation_steps=1) is None
    assert dependence_on_replicas(states[1:], task, EXAMPLES, num_replicas=3, accumulation_steps=1) is None


@pytest.mark.parametrize(
    ("layers", "mixes"),
    [
        ([Centred], True),
        ([Centred, lambda: LAYERS.Dropout(0.5, seed=1)], True),  # the draws of both calls are the same
        ([Centred, LAYERS.BatchNormalization], False),  # of which the run speaks anyway
        ([lambda: LAYERS.Dropout(0.5)], False),
        ([lambda: PositionalDropout(0.5, seed=1, stream=0)], False),
        ([LAYERS.LayerNormalization], False),
        ([lambda: LAYERS.GaussianNoise(1.0)], False),
        ([lambda: LAYERS.Dense(2)], False),
    ],
    ids=[
        "centred",
        "centred, dropout",
        "centred, normalization",
        "dropout",
        "positional",
        "layer normalization",
        "noise",
        "dense",
    ],
)
def test_a_run_says_that_a_users_layer_mixes_the_examples_of_a_microbatch(layers, mixes):
    task = task_of(*(layer() for layer in layers))
    said = dependence_on_replicas([], task, EXAMPLES, num_replicas=2, accumulation_steps=3)
    assert (said is not None and "outputs of an example depend on other examples" in said) == mixes
    assert dependence_on_replicas([], task, EXAMPLES, num_replicas=1, accumulation_steps=1) is None
