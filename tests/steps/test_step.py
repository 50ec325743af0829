"""One step against NumPy: the weighted loss over the global batch, its gradient, its sums."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from task_state import set_state, state_of

from distrain.batch import step_flags
from distrain.data.batches import epoch_batches, idle_batch, sample_batch
from distrain.data.plan import EpochPlan
from distrain.data.shuffle import epoch_order
from distrain.data.sources import array_examples
from distrain.distribution.single import SingleDevice
from distrain.errors import ConfigurationError
from distrain.training.steps.finite import BAD_GRADIENT, BAD_LOSS, all_finite
from distrain.training.steps.step import make_evaluate_step, make_train_steps
from distrain.training.steps.task import batch_specs, make_task

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(11, 4)).astype(np.float32)
Y = RANDOM.normal(size=(11, 2)).astype(np.float32)
WEIGHTS = RANDOM.choice([0, 0.5, 1, 3], 11).astype(np.float32)
RATE = 0.1
FED = ("features", "labels")


class Replica(SingleDevice):
    """One of `num_replicas`, computing alone: what it would put into the sum over replicas."""

    def __init__(self, num_replicas):
        self.num_replicas = num_replicas


def linear(regularizer=None):
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, kernel_regularizer=regularizer)])


def task_of(examples, *, model=linear, loss="mse", metrics=(), optimizer=None):
    def build():
        built = model()
        built.compile(optimizer or keras.optimizers.SGD(RATE), loss, metrics=metrics, weighted_metrics=metrics)
        return built

    sample = sample_batch(examples)
    # XLA would compile each update for a second; tests/system trains with it.
    scope = SingleDevice().scope()
    task = make_task(build, sample, scope=scope, num_columns=examples.num_columns, jit_compile=False)
    return task, batch_specs(sample)


def batches_of(examples, num_replicas=1, batch_size=11):
    plan = EpochPlan(examples.num_examples, num_replicas, batch_size)
    order = epoch_order(plan.num_examples, seed=0, epoch=0, shuffle=False)
    return list(epoch_batches(examples, plan, order, replicas=range(num_replicas)))


def make_train_step(task, replicas, specs, **settings):
    """One step a call."""
    steps = make_train_steps(task, replicas, specs, **settings)
    return lambda batches: steps([batches])[0]


def numpy_gradient(kernel, bias, weights):
    """Of sum(w * mean((x W + b - y)**2)) / n, as Keras divides."""
    inner = (X @ kernel + bias - Y) * weights[:, None] / len(weights)  # the 2 of the square over the 2 outputs
    return X.T @ inner, inner.sum(0)


def weights_of(task):
    return [variable.numpy().astype(np.float64) for variable in task.model.trainable_variables]


def test_one_step_is_gradient_descent_on_the_weighted_mean():
    examples = array_examples(X, Y, WEIGHTS)
    task, specs = task_of(examples, metrics=["mse"])
    before = weights_of(task)
    residual = np.mean((X @ before[0] + before[1] - Y) ** 2, axis=1)
    sums = make_train_step(task, SingleDevice(), specs)(batches_of(examples)[0]).sums
    assert sums[0] == pytest.approx((WEIGHTS * residual).sum(), rel=1e-5)
    assert sums[1] == len(WEIGHTS)
    shown = task.metrics.results(sums)
    assert shown["loss"] == pytest.approx((WEIGHTS * residual).mean(), rel=1e-5)
    assert shown["mse"] == pytest.approx(residual.mean(), rel=1e-5)
    assert shown["weighted_mse"] == pytest.approx(np.average(residual, weights=WEIGHTS), rel=1e-5)
    for after, start, gradient in zip(weights_of(task), before, numpy_gradient(*before, WEIGHTS), strict=True):
        np.testing.assert_allclose(after, start - RATE * gradient, atol=1e-6)


@pytest.mark.parametrize(("num_replicas", "batch_size"), [(2, 6), (3, 4), (4, 3), (5, 4)])
def test_uneven_replicas_add_up_to_the_gradient_of_the_whole(num_replicas, batch_size):
    """Each replica's own update, divided by the global weight: their sum is the update of the global batch."""
    examples = array_examples(X, Y, WEIGHTS)
    (batches,) = batches_of(examples, num_replicas, batch_size)
    task, specs = task_of(examples)
    step = make_train_step(task, Replica(num_replicas), specs)
    start, before = state_of(task), weights_of(task)
    updates, sums = 0, 0
    for batch in batches:
        set_state(task, start)
        sums = sums + np.array(step([batch]).sums[:2])
        updates = updates + np.concatenate([(a - b).ravel() for a, b in zip(weights_of(task), before, strict=True)])
    expected = np.concatenate([-RATE * gradient.ravel() for gradient in numpy_gradient(*before, WEIGHTS)])
    np.testing.assert_allclose(updates, expected, atol=1e-6)
    assert sums[1] == len(WEIGHTS)


@pytest.mark.parametrize("num_replicas", [1, 4])
def test_regularization_counts_once_over_all_replicas(num_replicas):
    """With labels that are met exactly nothing but the penalty is left, of which each replica takes its share."""
    task, specs = task_of(array_examples(X, Y), model=lambda: linear(keras.regularizers.L2(0.5)))
    kernel, bias = weights_of(task)
    exact = batches_of(array_examples(X, (X @ kernel + bias).astype(np.float32)))[0][0]
    exact = exact._replace(global_rows=np.int32(11 * num_replicas))
    make_train_step(task, Replica(num_replicas), specs)([exact])
    np.testing.assert_allclose(weights_of(task)[0], kernel - RATE * 2 * 0.5 * kernel / num_replicas, atol=1e-6)


def test_the_example_of_an_idle_replica_adds_nothing():
    examples = array_examples(X, Y)
    task, specs = task_of(examples, metrics=["mse"])
    before = weights_of(task)
    empty = idle_batch(sample_batch(examples), 0)._replace(global_rows=np.int32(8))
    sums = make_train_step(task, Replica(2), specs)([empty]).sums
    assert [float(np.sum(value)) for value in sums] == [0.0] * len(sums)
    assert all(np.array_equal(a, b) for a, b in zip(weights_of(task), before, strict=True))


def test_a_step_that_weighs_nothing_changes_nothing():
    examples = array_examples(X, Y, np.zeros(11))
    task, specs = task_of(examples)
    before = weights_of(task)
    sums = make_train_step(task, SingleDevice(), specs)(batches_of(examples)[0]).sums
    assert task.metrics.results(sums)["loss"] == 0
    assert all(np.array_equal(a, b) for a, b in zip(weights_of(task), before, strict=True))


def test_clipping_acts_on_the_global_gradient():
    """Clipping limits the norm of the whole gradient, not of a part of the batch."""
    examples = array_examples(X, Y)
    task, specs = task_of(examples, optimizer=keras.optimizers.SGD(1.0, global_clipnorm=0.01))
    before = weights_of(task)
    make_train_step(task, SingleDevice(), specs)(batches_of(examples)[0])
    gradient = numpy_gradient(*before, np.ones(11))
    norm = np.sqrt(sum(np.sum(part**2) for part in gradient))
    for after, start, part in zip(weights_of(task), before, gradient, strict=True):
        np.testing.assert_allclose(after - start, -part * 0.01 / norm, atol=1e-6)


@pytest.mark.parametrize(
    "features", [X, scipy.sparse.csr_matrix(np.where(np.abs(X) > 0.5, X, 0))], ids=["dense", "sparse"]
)
def test_accumulated_batches_make_one_step_of_their_union(features):
    """Uneven weights, a ragged tail with empty batches, a penalty, clipping: as two steps over 6 and 5 examples."""
    examples = array_examples(features, Y, WEIGHTS)
    ends = []
    for parts in (1, 2, 3):
        optimizer = keras.optimizers.SGD(RATE, momentum=0.9, global_clipnorm=0.1)
        task, specs = task_of(examples, optimizer=optimizer, model=lambda: linear(keras.regularizers.L2(0.1)))
        step = make_train_step(task, SingleDevice(), specs, accumulation_steps=parts)
        sums = [step(batches).sums[:2] for batches in batches_of(examples, parts, 6 // parts)]
        ends.append([*weights_of(task), np.array(sums), task.optimizer.iterations.numpy()])
    for parts, end in zip((2, 3), ends[1:], strict=True):
        for whole, accumulated in zip(ends[0], end, strict=True):
            np.testing.assert_allclose(accumulated, whole, atol=1e-6, err_msg=f"{parts} parts")
    assert ends[0][-1] == 2


@pytest.mark.parametrize("is_masked", [False, True])
def test_more_accumulated_batches_cost_no_more_tracing(is_masked):
    """The model of 32 microbatches would else be traced 32 times before the first step, for minutes."""
    traced = []

    def noted(x):
        traced.append(x)
        return x

    def model():
        inputs = keras.Input((7,), dtype="int32")
        words = keras.layers.Embedding(6, 3, mask_zero=is_masked)(inputs)  # the loss divides by the words with weight
        last = keras.layers.Dense(2)(words)
        return keras.Model(inputs, keras.layers.Lambda(noted, mask=lambda _, mask: mask)(last))

    labels = np.repeat(Y[:, None], 7, axis=1)
    examples = array_examples(np.random.default_rng(3).integers(0, 6, (11, 7)).astype(np.int32), labels)
    counts = []
    for parts in (2, 6):
        task, specs = task_of(examples, model=model)
        assert task.has_divisors == is_masked
        traced.clear()
        make_train_step(task, SingleDevice(), specs, accumulation_steps=parts)
        make_evaluate_step(task, SingleDevice(), specs, accumulation_steps=parts)
        counts.append(len(traced))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_several_steps_in_a_call_are_those_steps(accumulation_steps):
    """Eleven steps in calls of 1, 2 or 4: each step starts from the weights of the step before."""
    examples = array_examples(X, Y, WEIGHTS)
    steps = batches_of(examples, accumulation_steps, 1) * accumulation_steps
    ends = []
    for calls in ((1,) * 11, (1, 2, 4, 4)):
        task, specs = task_of(examples, optimizer=keras.optimizers.SGD(RATE, momentum=0.9))
        settings = {"accumulation_steps": accumulation_steps, "steps_per_execution": max(calls)}
        run, following = make_train_steps(task, SingleDevice(), specs, **settings), iter(steps)
        outcomes = [each for number in calls for each in run(list(itertools.islice(following, number)))]
        ends.append([np.array([outcome.sums[:2] for outcome in outcomes]), *state_of(task)])
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(other, one)


@pytest.mark.parametrize("bad", ["a failed process", "a loss that is not finite"])
def test_steps_after_an_unsound_one_in_the_same_call_leave_the_weights_too(bad):
    """The witness is the first step alone."""
    features = X.copy()
    if bad != "a failed process":
        features[1, 0] = np.inf
    task, specs = task_of(array_examples(features, Y))
    steps = batches_of(array_examples(features, Y), 1, 1)[:3]
    if bad == "a failed process":
        steps[1] = [steps[1][0]._replace(step_flags=step_flags(0, failed=True))]
    outcomes = make_train_steps(task, SingleDevice(), specs, steps_per_execution=3)(steps)
    assert [outcome.num_failures == 0 and outcome.is_finite for outcome in outcomes[:2]] == [True, False]
    expected, specs = task_of(array_examples(features, Y))
    make_train_step(expected, SingleDevice(), specs)(steps[0])
    for own, wanted in zip(weights_of(task), weights_of(expected), strict=True):
        np.testing.assert_array_equal(own, wanted)


@pytest.mark.parametrize("bad", ["a failed process", "a loss that is not finite"])
def test_an_unsound_step_leaves_the_weights_and_says_so(bad):
    features = X.copy()
    if bad != "a failed process":
        features[7, 0] = np.inf
    examples = array_examples(features, Y)
    task, specs = task_of(examples, optimizer=keras.optimizers.SGD(RATE, momentum=0.9))
    before = weights_of(task)
    (batch,) = batches_of(examples)[0]
    batch = batch._replace(step_flags=step_flags(3, stop=True, failed=bad == "a failed process"))
    outcome = make_train_step(task, Replica(5), specs)([batch])
    assert all(np.array_equal(a, b) for a, b in zip(weights_of(task), before, strict=True))
    assert int(task.optimizer.iterations) == 0
    assert (outcome.num_stops, outcome.num_failures) == ((1, 1) if bad == "a failed process" else (1, 0))
    assert outcome.bad_shares == ((0,) * 5 if bad == "a failed process" else (0, 0, 0, BAD_LOSS, 0))


def hidden_relu():
    """A NaN feature gives a finite loss behind `relu` (TensorFlow's relu of NaN is 0 here), but a NaN gradient."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    norms = keras.layers.BatchNormalization()(inputs)  # its moving averages change in the forward pass
    inner = keras.layers.Lambda(lambda x: tf.where(tf.math.is_finite(x), tf.nn.relu(x), 0.0))
    return keras.Model(inputs, keras.layers.Dense(2)(inner(keras.layers.Dense(3)(norms))))


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_a_skipped_step_is_as_if_it_had_not_been(at_once, accumulation_steps):
    """The witness is the other two steps, before: equal weights, moving averages, and state of the optimizer."""
    features = X.copy()
    features[5, 2] = np.nan
    examples = array_examples(features, Y)
    task, specs = task_of(examples, model=hidden_relu, optimizer=keras.optimizers.SGD(RATE, momentum=0.9))
    steps = batches_of(examples, accumulation_steps, 4 // accumulation_steps)
    settings = {"accumulation_steps": accumulation_steps, "steps_per_execution": at_once, "skips": True}
    run = make_train_steps(task, SingleDevice(), specs, **settings)
    start = state_of(task)
    run([steps[0]])
    run([steps[2]])
    witness = state_of(task)
    set_state(task, start)
    outcomes = [outcome for first in range(0, 3, at_once) for outcome in run(steps[first : first + at_once])]
    assert [outcome.bad_shares for outcome in outcomes] == [(0,), (BAD_GRADIENT,), (0,)]
    assert np.isfinite(outcomes[1].sums[0]), "the loss does not show it"
    for value, wanted in zip(state_of(task), witness, strict=True):
        np.testing.assert_array_equal(value, wanted)
    assert int(task.optimizer.iterations) == 2


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_which_gradients_are_finite(dtype):
    moderate = tf.fill([300], tf.constant(1000, dtype))  # beyond the range of float16 as a sum
    rows = tf.IndexedSlices(moderate[:, tf.newaxis], tf.range(300), (300, 1))
    assert bool(all_finite([moderate, rows, tf.zeros([0], dtype)]))
    for bad in ("nan", "inf", "-inf"):
        last = tf.concat([moderate[1:], tf.constant([float(bad)], dtype)], axis=0)
        assert not bool(all_finite([moderate, last]))
        assert not bool(all_finite([moderate, tf.IndexedSlices(last, tf.range(300), (300,))]))


def test_finite_shares_whose_sum_overflows_change_no_weight():
    class Doubling(Replica):
        """The other replica has the same share."""

        def sum(self, gradients, metrics):
            return [g * 2 for g in gradients], [m * 2 for m in metrics]

    large = np.zeros_like(X)
    large[:, 0] = 5e19

    def zero_of_steep_slope(labels, outputs):  # 2e38 in the gradient of a share
        return 4e18 * (outputs[:, 0] - tf.stop_gradient(outputs[:, 0]))

    task, specs = task_of(array_examples(large, Y), loss=zero_of_steep_slope)
    before = weights_of(task)
    (batch,) = batches_of(array_examples(large, Y))[0]
    outcome = make_train_step(task, Doubling(2), specs)([batch])
    assert (outcome.bad_total, outcome.bad_shares) == (BAD_GRADIENT, (0, 0))
    assert all(np.array_equal(a, b) for a, b in zip(weights_of(task), before, strict=True))


def test_epochs_of_keras_itself_end_at_the_same_weights():
    """The witness: `train_on_batch` over the same batches, the last one short."""
    examples = array_examples(X, Y)
    task, specs = task_of(examples, optimizer=keras.optimizers.Adam(0.01))
    step = make_train_step(task, SingleDevice(), specs)
    witness = linear()
    witness.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse", run_eagerly=True)
    for _ in range(3):
        for batches in batches_of(examples, 1, 4):
            step(batches)
            witness.train_on_batch(batches[0].features, batches[0].labels)
    for own, keras_own in zip(weights_of(task), witness.get_weights(), strict=True):
        np.testing.assert_allclose(own, keras_own, atol=1e-6)


def test_evaluation_gives_the_same_sums_and_changes_nothing():
    examples = array_examples(X, Y, WEIGHTS)
    task, specs = task_of(examples, metrics=["mse"])
    before = weights_of(task)
    evaluate = make_evaluate_step(task, SingleDevice(), specs)
    whole = evaluate(batches_of(examples)[0]).sums
    parts = [evaluate(batches).sums for batches in batches_of(examples, 1, 4)]
    assert len(parts) == 3
    for value, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_allclose(value, sum(pieces), rtol=1e-5)
    assert all(np.array_equal(a, b) for a, b in zip(weights_of(task), before, strict=True))


def test_a_stock_model_takes_sparse_rows_as_a_sparse_tensor():
    """With rows that have no entry, the last one among them, in the same shape as dense rows."""
    dense = np.where(np.abs(X) > 1, X, 0).astype(np.float32)
    dense[-1] = 0
    results = []
    for features in (dense, scipy.sparse.csr_matrix(dense)):
        examples = array_examples(features, Y)
        task, specs = task_of(examples)
        step = make_train_step(task, SingleDevice(), specs)
        sums = [step(batches).sums[0] for batches in batches_of(examples, 1, 4)]
        results.append([*sums, *weights_of(task)])
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_a_weight_that_the_loss_does_not_touch_stays():
    class WithSpare(keras.Model):
        def __init__(self):
            super().__init__()
            self.used = keras.layers.Dense(2)
            self.spare = self.add_weight(shape=(3,), initializer="ones", name="spare")

        def call(self, inputs):
            return self.used(inputs)

    examples = array_examples(X, Y)
    task, specs = task_of(examples, model=WithSpare)
    make_train_step(task, SingleDevice(), specs)(batches_of(examples)[0])
    assert task.model.spare.numpy().tolist() == [1.0] * 3


def test_a_model_without_weights_is_refused():
    examples = array_examples(X, Y)
    task, specs = task_of(
        examples,
        model=lambda: keras.Sequential([keras.Input((4,)), keras.layers.Reshape((2, 2))]),
        loss=lambda y, p: keras.ops.mean(p, axis=(1, 2)),
    )
    with pytest.raises(ConfigurationError, match="no trainable weights"):
        make_train_step(task, SingleDevice(), specs)


@pytest.mark.parametrize(
    ("features", "model", "words"),
    [
        (X[:, :3], linear, r"does not take the data, float32\[2, 3\]"),
        ({"a": X, "b": X}, linear, "does not take the data"),
        (
            X,
            lambda: keras.Model(i := keras.Input((4,)), [keras.layers.Dense(1)(i), i]),
            r"outputs \['float32\[2, 1\]', 'float32\[2, 4\]'\]: Incompatible shapes: \[2\] vs. \[2,4\]",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_told_with_the_shapes(features, model, words):
    with pytest.raises(ConfigurationError, match=words):
        task_of(array_examples(features, Y), model=model)


@pytest.mark.parametrize(("name", "accumulation_steps"), [("adam", 1), ("ftrl", 3)])
def test_repeated_words_of_an_embedding_train_as_in_keras(name, accumulation_steps):
    """Keras squares the row of each word by itself; a dense sum of the rows would end elsewhere."""
    words = RANDOM.integers(1, 6, (11, 7)).astype(np.int32)

    def tagger():
        keras.utils.set_random_seed(1)
        embedding = keras.layers.Embedding(6, 3, mask_zero=True)
        layers = [embedding, keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(2)]
        return keras.Sequential([keras.Input((7,), dtype="int32"), *layers])

    def optimizer():
        return keras.optimizers.get({"class_name": name, "config": {"learning_rate": 0.05, "clipnorm": 0.01}})

    examples = array_examples(words, Y)
    task, specs = task_of(examples, model=tagger, optimizer=optimizer())
    step = make_train_step(task, SingleDevice(), specs, accumulation_steps=accumulation_steps)
    witness = tagger()
    witness.compile(optimizer(), "mse", run_eagerly=True)
    for _ in range(3):
        for batches in batches_of(examples, accumulation_steps, 6 // accumulation_steps):
            step(batches)
            witness.train_on_batch(*(np.concatenate([getattr(b, f) for b in batches if b.num_rows]) for f in FED))
    for own, keras_own in zip(weights_of(task), witness.get_weights(), strict=True):
        np.testing.assert_allclose(own, keras_own, rtol=1e-5, atol=1e-6)
