"""XLA of a user's model ends at the weights of Keras, and refuses a model that XLA cannot compile."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

import distrain
from distrain.data.batches import epoch_batches, sample_batch
from distrain.data.plan import EpochPlan
from distrain.data.shuffle import epoch_order
from distrain.data.sources import array_examples
from distrain.distribution.single import SingleDevice
from distrain.errors import ConfigurationError
from distrain.training.steps.model_jit import check_model_jit
from distrain.training.steps.step import make_train_steps
from distrain.training.steps.task import batch_specs, make_task

# Keras reads variables by a way that NumPy will drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 6, (11, 5)).astype(np.int32)
Y = RANDOM.integers(0, 2, 11)


def tagger():
    """A model with rows of an embedding, a mask, moving averages, and a penalty."""
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Embedding(6, 4, mask_zero=True),
        keras.layers.GlobalAveragePooling1D(),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(2, kernel_regularizer="l2"),
    ]
    return keras.Sequential([keras.Input((5,), dtype="int32"), *layers])


def compiled(build=tagger, *, jit_compile="auto", metrics=()):
    model = build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.5), loss, metrics=list(metrics), jit_compile=jit_compile)
    return model


def task_of(build, examples, **settings):
    scope = SingleDevice().scope()
    sample = sample_batch(examples)
    task = make_task(build, sample, scope=scope, num_columns=examples.num_columns, jit_compile=False, **settings)
    return task, sample


def batches_of(examples, parts=1):
    plan = EpochPlan(examples.num_examples, parts, 4 // parts)
    order = epoch_order(plan.num_examples, seed=0, epoch=0, shuffle=False)
    return list(epoch_batches(examples, plan, order, replicas=range(parts)))


class Replica(SingleDevice):
    """One of two, computing alone."""

    num_replicas = 2


def words():
    """A model with an output for each word, whose mask gives the loss a divisor."""
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Embedding(6, 4, mask_zero=True), keras.layers.Dense(2, kernel_regularizer="l2")]
    return keras.Sequential([keras.Input((5,), dtype="int32"), *layers])


def trained(parts=1, *, build=tagger, labels=Y, num_rows=11, replicas=None, **settings):
    """The model after two epochs of steps over four rows, the last one short for 11 rows: XLA compiles two shapes."""
    examples = array_examples(X[:num_rows], labels[:num_rows])
    replicas = replicas or SingleDevice()
    task, sample = task_of(lambda: compiled(build, **settings), examples)
    assert task.jit_model == settings.get("jit_compile", False)
    check_model_jit(task, replicas, sample)
    train = make_train_steps(task, replicas, batch_specs(sample), accumulation_steps=parts)
    for _ in range(2):
        for batches in batches_of(examples, parts):
            train([batches])
    return task.model


def test_epochs_end_at_the_weights_of_keras():
    """Keras runs its steps one operation at a time, so XLA compiles nothing of the witness."""
    witness = compiled(jit_compile=False)
    witness.run_eagerly = True
    for _ in range(2):
        for (whole,) in batches_of(array_examples(X, Y)):
            witness.train_on_batch(whole.features, whole.labels)
    for own, wanted in zip(trained(jit_compile=True).variables, witness.variables, strict=True):
        np.testing.assert_allclose(own.numpy(), wanted.numpy(), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    "settings",
    [{"parts": 2}, {"replicas": Replica(), "num_rows": 8}, {"num_rows": 8}],
    ids=["parts", "replicas", "whole"],
)
def test_a_divisor_of_the_loss_counts_all_its_shares(settings):
    """XLA calls no collective, so the sum of a divisor over replicas stands before the call."""
    settings |= {"build": words, "labels": X % 2}
    own, wanted = trained(jit_compile=True, **settings), trained(**settings)
    for value, other in zip(own.variables, wanted.variables, strict=True):
        np.testing.assert_allclose(value.numpy(), other.numpy(), rtol=1e-4, atol=2e-5)


def test_xla_compiles_the_model_only_if_asked(monkeypatch):
    calls = []
    function = tf.function
    monkeypatch.setattr(tf, "function", lambda *args, **kwargs: calls.append(kwargs) or function(*args, **kwargs))
    examples = array_examples(X, Y)
    for settings, wanted in (({}, 0), ({"jit_model": True}, 1)):
        task, sample = task_of(compiled, examples, **settings)
        calls.clear()
        make_train_steps(task, SingleDevice(), batch_specs(sample))
        assert sum(call.get("jit_compile") is True for call in calls) - 1 == wanted, "one is the update that selects"


def through_python():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    hidden = keras.layers.Lambda(lambda x: tf.ensure_shape(tf.numpy_function(np.abs, [x], tf.float32), x.shape))
    return keras.Model(inputs, keras.layers.Dense(2)(hidden(keras.layers.Dense(3)(inputs))))


def test_an_operation_without_a_kernel_is_refused():
    task, sample = task_of(lambda: compiled(through_python), array_examples(X.astype("f4"), Y), jit_model=True)
    with pytest.raises(ConfigurationError, match=r"XLA cannot compile the model: it has no kernel for \w*PyFunc\w*\. "):
        check_model_jit(task, SingleDevice(), sample)


def test_sparse_rows_are_refused():
    def linear():
        return keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])

    examples = array_examples(scipy.sparse.csr_matrix(X.astype("f4")), Y)
    task, sample = task_of(lambda: compiled(linear), examples, jit_model=True)
    with pytest.raises(ConfigurationError, match="sparse rows"):
        check_model_jit(task, SingleDevice(), sample)


def test_several_devices_of_a_process_are_refused():
    task, sample = task_of(compiled, array_examples(X, Y), jit_model=True)
    with pytest.raises(ConfigurationError, match="--strategy horovod or mpi"):
        check_model_jit(task, SimpleNamespace(local_update=False), sample)


def test_a_run_refuses_before_its_first_step_and_trains_what_fits(tmp_path):
    fixed = {"global_batch_size": 4, "epochs": 2, "devices": "cpu:1", "strategy": "single"}
    fixed |= {"jit_compile": False, "verbose": 0}
    with pytest.raises(ConfigurationError, match="XLA cannot compile the model"):
        distrain.fit(lambda: compiled(through_python), (X.astype("f4"), Y), run=tmp_path / "a", jit_model=True, **fixed)
    results = [
        distrain.fit(
            lambda: compiled(metrics=["accuracy"]),
            (X[:8], Y[:8]),
            run=tmp_path / way,
            jit_model=way == "xla",
            steps_per_execution=2,
            **fixed,
        )
        for way in ("xla", "plain")
    ]
    own, wanted = ([epoch[name] for epoch in result.history for name in ("loss", "accuracy")] for result in results)
    assert own == pytest.approx(wanted, rel=1e-5)
