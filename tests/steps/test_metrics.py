"""Metrics as sums: any division of the data gives the results of Keras' `evaluate` on all data."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from distrain.data.batches import epoch_batches, sample_batch
from distrain.data.plan import EpochPlan
from distrain.data.shuffle import epoch_order
from distrain.data.sources import array_examples
from distrain.distribution.single import SingleDevice
from distrain.training.steps.step import make_evaluate_step
from distrain.training.steps.task import batch_specs, make_task

RANDOM = np.random.default_rng(0)
N = 31
X = RANDOM.normal(size=(N, 4)).astype(np.float32)
BINARY = RANDOM.integers(0, 2, (N, 1)).astype(np.float32)
CLASSES = RANDOM.integers(0, 3, N).astype(np.int32)
WEIGHTS = RANDOM.choice([0, 0.5, 1, 3], N).astype(np.float32)


class Smoothed(keras.metrics.Metric):
    """The part of positive labels, with one of each kind seen beforehand: its state does not begin at zero."""

    def __init__(self):
        super().__init__(name="smoothed")
        self.positive = self.add_weight(shape=(), initializer="ones", name="positive")
        self.all = self.add_weight(shape=(), initializer=keras.initializers.Constant(2), name="all")

    def update_state(self, labels, outputs, sample_weight=None):
        weights = keras.ops.ones_like(labels[:, 0]) if sample_weight is None else sample_weight
        self.positive.assign_add(keras.ops.sum(labels[:, 0] * weights))
        self.all.assign_add(keras.ops.sum(weights))

    def result(self):
        return self.positive / self.all

    def reset_state(self):
        self.positive.assign(1)
        self.all.assign(2)


def model_of(labels, metrics):
    keras.utils.clear_session(free_memory=False)  # names of metrics count from the start again
    keras.utils.set_random_seed(3)
    units, activation = (1, "sigmoid") if labels is BINARY else (3, "softmax")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation=activation)])
    loss = "binary_crossentropy" if labels is BINARY else "sparse_categorical_crossentropy"
    model.compile("sgd", loss, metrics=metrics(), weighted_metrics=metrics())
    return model


def of_binary_labels():
    """Names, one name twice, objects, a function, a number per class, a state that begins with counts."""
    return [
        *["accuracy", "mae", "mse"],
        *[keras.metrics.BinaryAccuracy(threshold=threshold) for threshold in (0.3, 0.5)],
        *[keras.metrics.AUC(), keras.metrics.Recall(), keras.metrics.RootMeanSquaredError()],
        lambda y, p: keras.ops.abs(y - p)[:, 0],
        keras.metrics.F1Score(threshold=0.5),
        Smoothed(),
    ]


CASES = {
    "binary": (BINARY, of_binary_labels),
    "classes": (CLASSES, lambda: ["acc", keras.metrics.SparseTopKCategoricalAccuracy(2)]),
}


@pytest.mark.parametrize("case", CASES)
def test_any_division_gives_the_results_of_keras_on_all_data(case):
    labels, metrics = CASES[case]
    witness = model_of(labels, metrics)
    witness.run_eagerly = True  # else Keras would compile a step
    expected = witness.evaluate(X, labels, batch_size=N, sample_weight=WEIGHTS, verbose=0, return_dict=True)
    examples = array_examples(X, labels, WEIGHTS)
    sample = sample_batch(examples)
    task = make_task(lambda: model_of(labels, metrics), sample, scope=SingleDevice().scope(), num_columns={})
    order = epoch_order(N, seed=0, epoch=0, shuffle=False)
    for num_shares, batch_size in ((1, 8), (5, 7)):
        evaluate = make_evaluate_step(task, SingleDevice(), batch_specs(sample), accumulation_steps=num_shares)
        plan = EpochPlan(N, num_shares, batch_size)
        steps = [evaluate(batches).sums for batches in epoch_batches(examples, plan, order, replicas=range(num_shares))]
        results = task.metrics.results([np.sum(sums, axis=0, dtype=np.float64) for sums in zip(*steps, strict=True)])
        assert results.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(results[name], value, rtol=1e-5, err_msg=f"{name} of {num_shares} shares")
    assert [float(np.sum(v)) for m in task.model.metrics for v in m.variables if "total" in v.name] == pytest.approx(
        [0.0] * sum("total" in v.name for m in task.model.metrics for v in m.variables)
    )


def test_a_sum_of_nothing_gives_a_result():
    examples = array_examples(X, BINARY)
    task = make_task(
        lambda: model_of(BINARY, lambda: ["mae"]), sample_batch(examples), scope=SingleDevice().scope(), num_columns={}
    )
    assert task.metrics.results([np.zeros(())] * 6) == {"loss": 0, "mae": 0, "weighted_mae": 0}
