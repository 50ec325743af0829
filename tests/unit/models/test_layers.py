"""Dropout keyed by position, and the dense layer over sparse rows, against NumPy."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from distrain.batch import Batch, SparseRows, feeding
from distrain.errors import ConfigurationError
from distrain.models.layers import PositionalDropout, SparseDense
from distrain.models.sparse_product import sparse_product


def at(position, epoch=0):
    """A batch at `position` of its epoch; dropout reads no other field."""
    return Batch(None, None, None, tf.constant(epoch, tf.int64), tf.constant(position, tf.int64), None, None, None)


def sparse_rows(matrix, first_entry=0):
    """`SparseRows` of a matrix whose last row has an entry."""
    entries = scipy.sparse.csr_array(matrix).tocoo()
    row_ids, columns = entries.row.astype(np.int32), entries.col.astype(np.int32)
    parts = (row_ids, columns, entries.data.astype(np.float32), np.int64(first_entry))
    return SparseRows(*map(tf.constant, parts))


def dropped(inputs, position=0, *, rate=0.25, seed=3, stream=0, epoch=0):
    with feeding(at(position, epoch)):
        outputs = PositionalDropout(rate, seed=seed, stream=stream)(inputs, training=True)
    return (outputs.values if isinstance(outputs, SparseRows) else outputs).numpy()


CUTS = [0, 1, 2, 7, 7 + 16, 39, 40]


@pytest.mark.parametrize("shape", [(8,), (4,), (1,), (3,), (6,), (7, 5), (2, 3, 4)])
@pytest.mark.parametrize("first", [0, 1, 2**33 + 3])
def test_a_dense_mask_is_the_same_however_the_batch_is_sliced(shape, first):
    inputs = np.ones((40, *shape), np.float32)
    whole = dropped(inputs, first)
    sliced = [dropped(inputs[a:b], first + a) for a, b in itertools.pairwise(CUTS)]
    assert np.array_equal(whole, np.concatenate(sliced))
    assert 0 < np.count_nonzero(whole) < whole.size


@pytest.mark.parametrize("first", [0, 5, 2**40])
def test_a_sparse_mask_is_the_same_however_the_batch_is_sliced(first):
    dense = np.random.default_rng(0).integers(0, 2, (40, 13)).astype(np.float32)
    dense[:, 5] = 1
    whole = dropped(sparse_rows(dense, first))
    before = [np.count_nonzero(dense[:row]) for row in CUTS]
    sliced = [
        dropped(sparse_rows(dense[a:b], first + entries))
        for (a, b), entries in zip(itertools.pairwise(CUTS), before, strict=False)
    ]
    assert np.array_equal(whole, np.concatenate(sliced))
    assert 0 < np.count_nonzero(whole) < whole.size


@pytest.mark.parametrize("make", [np.asarray, sparse_rows], ids=["dense", "sparse"])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_kept_and_its_scale(make, rate):
    inputs = make(np.full((400, 250), 2, np.float32))
    outputs = dropped(inputs, 17, rate=rate)
    kept = outputs != 0
    sigma = np.sqrt(rate * (1 - rate) / kept.size)
    assert abs(kept.mean() - (1 - rate)) < 5 * sigma
    assert np.allclose(outputs[kept], 2 / (1 - rate), rtol=1e-6)
    grid = kept.reshape(400, 250)  # no row and no column is favoured; a sum of 250 or 400 draws
    for axis in (0, 1):
        assert np.all(np.abs(grid.mean(axis) - (1 - rate)) < 6 * np.sqrt(rate * (1 - rate) / grid.shape[axis]))


@pytest.mark.parametrize("make", [np.asarray, sparse_rows], ids=["dense", "sparse"])
def test_masks_of_epochs_streams_seeds_and_positions_are_unlike(make):
    inputs = make(np.ones((64, 32), np.float32))
    variants = [{}, {"epoch": 1}, {"stream": 1}, {"seed": 4}, {"seed": 3 + 2**48}, {"position": 64}]
    variants += [{"epoch": 1, "stream": 1}, {"position": 1}]
    if make is sparse_rows:  # where they stand is told by the entries before them
        placed = {position: sparse_rows(np.ones((64, 32)), 32 * position) for position in (1, 64)}
        variants = [{"inputs": placed[v["position"]]} if "position" in v else v for v in variants]
    masks = [dropped(**{"inputs": inputs, "rate": 0.5, **variant}).ravel() != 0 for variant in variants]
    for number, mask in enumerate(masks):
        for other in masks[:number]:
            # Two unlike masks agree on half of 2048 entries, give or take 5 sigma of 22.6.
            assert abs(np.count_nonzero(mask == other) - 1024) < 5 * 22.6
    assert np.array_equal(masks[0], dropped(inputs, rate=0.5).ravel() != 0)


def test_dropout_leaves_the_inputs_alone_outside_training_and_at_rate_zero():
    inputs = np.ones((2, 3), np.float32)
    assert np.array_equal(PositionalDropout(0.5, seed=0, stream=0)(inputs), inputs)
    assert np.array_equal(dropped(inputs, rate=0.0), inputs)
    assert np.array_equal(PositionalDropout(0.0, seed=0, stream=0)(inputs, training=True), inputs)


def test_dropout_in_training_needs_to_know_where_it_is():
    with pytest.raises(ConfigurationError, match=r"outside distrain's loop.*distrain\.fit"):
        PositionalDropout(0.5, seed=0, stream=0)(np.ones((2, 3), np.float32), training=True)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_dropout_rates_are_checked(rate):
    with pytest.raises(ConfigurationError, match="dropout rate is"):
        PositionalDropout(rate, seed=0, stream=0)


def test_dropout_gradient_is_its_mask():
    inputs = tf.ones((5, 6))
    with tf.GradientTape() as tape, feeding(at(3)):
        tape.watch(inputs)
        outputs = PositionalDropout(0.5, seed=1, stream=0)(inputs, training=True)
    assert np.array_equal(tape.gradient(outputs, inputs).numpy(), outputs.numpy())


MATRIX = np.where(np.random.default_rng(1).random((9, 14)) < 0.3, np.random.default_rng(2).normal(size=(9, 14)), 0)
MATRIX[[0, 4, 5]] = 0  # empty rows, the first and two in a row
MATRIX[:, 6] = 0  # a column that nobody touches
MATRIX[8, 3] = 1.5
MATRIX = MATRIX.astype(np.float32)


@pytest.fixture
def layer():
    keras.utils.set_random_seed(0)
    layer = SparseDense(5, 14, activation="tanh")
    layer.bias.assign(np.linspace(-1, 1, 5))
    return layer


def expected_of(layer, upstream):
    """tanh(x W + b) and its gradients, by NumPy."""
    kernel, bias = layer.kernel.numpy().astype(np.float64), layer.bias.numpy().astype(np.float64)
    outputs = np.tanh(MATRIX @ kernel + bias)
    inner = upstream * (1 - outputs**2)
    return outputs, MATRIX.T @ inner, inner.sum(0), (inner @ kernel.T)[MATRIX != 0]


@pytest.mark.parametrize("device", ["cpu", "gpu", "gpu, large batch"])
def test_sparse_dense_against_numpy(layer, device, monkeypatch):
    """Also as a GPU would compute it."""
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["GPU:0"] if device != "cpu" else [])
    if device == "gpu, large batch":
        monkeypatch.setattr("distrain.models.sparse_product.MAX_DENSE_BYTES", 14 * 4 * 8)
    upstream = np.random.default_rng(3).normal(size=(9, 5))
    outputs, of_kernel, of_bias, of_values = expected_of(layer, upstream)
    rows = sparse_rows(MATRIX)
    with tf.GradientTape() as tape:
        tape.watch(rows.values)
        got = layer(rows)
        loss = tf.reduce_sum(got * upstream.astype(np.float32))
    gradients = tape.gradient(loss, [layer.kernel.value, layer.bias.value, rows.values])
    np.testing.assert_allclose(got.numpy(), outputs, atol=1e-5)
    for gradient, expected in zip(gradients, (of_kernel, of_bias, of_values), strict=True):
        np.testing.assert_allclose(gradient.numpy(), expected, atol=1e-5)


def traced_product(dtype, on_gpu):
    """A function of rows and a kernel, traced once for any number of rows: their product, and the kernel's gradient."""
    numbers = tf.TensorSpec([None], tf.int32)
    rows = SparseRows(numbers, numbers, tf.TensorSpec([None], tf.float32), tf.TensorSpec([], tf.int64))

    @tf.function(autograph=False, input_signature=[rows, tf.TensorSpec([14, 5], dtype)])
    def product_and_gradient(rows, kernel):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            product = sparse_product(rows, kernel, on_gpu=on_gpu)
        return product, tape.gradient(product, kernel)

    return product_and_gradient


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_products_of_any_precision(dtype, kind, monkeypatch):
    """As dense rows a GPU takes the 9 rows of the first batch, and not the 18 of the second."""
    monkeypatch.setattr("distrain.models.sparse_product.MAX_DENSE_BYTES", 9 * 14 * tf.as_dtype(dtype).size)
    kernel = np.random.default_rng(5).normal(size=(14, 5))
    product_and_gradient = traced_product(dtype, kind == "gpu")
    for matrix in (MATRIX, np.concatenate([MATRIX, MATRIX])):
        product, gradient = product_and_gradient(sparse_rows(matrix), tf.cast(kernel, dtype))
        assert product.dtype == gradient.dtype == dtype
        precision = {"float16": 1e-2, "bfloat16": 1e-1, "float32": 1e-5, "float64": 1e-12}[dtype]
        np.testing.assert_allclose(tf.cast(product, tf.float64), matrix.astype(np.float64) @ kernel, atol=precision)
        expected = np.repeat(matrix.sum(0, dtype=np.float64)[:, np.newaxis], 5, axis=1)
        np.testing.assert_allclose(tf.cast(gradient, tf.float64), expected, atol=precision)


@pytest.mark.parametrize("column", [-1, 14])
def test_a_column_that_the_kernel_does_not_have_is_refused(column):
    rows = SparseRows(tf.constant([0]), tf.constant([column]), tf.constant([1.0]), tf.constant(0, tf.int64))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="takes 0 to 13"):
        sparse_product(rows, tf.ones((14, 5)), on_gpu=False)


@pytest.mark.parametrize("kind", ["SparseTensor", "dense"])
def test_sparse_dense_takes_other_forms_of_the_same_rows(layer, kind):
    dense = tf.constant(MATRIX)
    inputs = dense if kind == "dense" else tf.sparse.from_dense(dense)
    results = []
    for given in (sparse_rows(MATRIX), inputs):
        with tf.GradientTape() as tape:
            outputs = layer(given)
            loss = tf.reduce_sum(outputs**2)
        gradients = tape.gradient(loss, [layer.kernel.value, layer.bias.value])
        results.append([outputs, *map(tf.convert_to_tensor, gradients)])
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), atol=1e-5)


def test_layers_are_rebuilt_from_their_config(layer):
    for original in (layer, PositionalDropout(0.3, seed=2**62, stream=4)):
        config = keras.saving.serialize_keras_object(original)
        again = keras.saving.deserialize_keras_object(config)
        assert type(again) is type(original)
        assert again.get_config() == original.get_config()
