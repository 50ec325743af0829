"""The sequence model over packed rows, against stock Keras layers on one unpadded text at a time."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from distrain.batch import Batch, feeding
from distrain.data.collate import word_rows
from distrain.data.examples import PackedRows
from distrain.data.row_kernels import pack_rows
from distrain.models.sepcnn import SepCNN

WORDS = 30
LENGTHS = [5, 1, 9, 27, 2, 3, 4, 60, 8]
EMPTY = np.zeros(0, np.int32)


@pytest.fixture(autouse=True, scope="module")
def float64():
    """Compute in float64, so that rounding hides no difference."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(policy)


def texts(lengths=LENGTHS):
    rng = np.random.default_rng(0)
    return [rng.integers(1, WORDS, length).astype(np.int32) for length in lengths]


def packed(rows, pad_multiple, first_token=0):
    splits, columns = np.cumsum([0, *map(len, rows)]), np.concatenate(rows)
    result = word_rows(PackedRows(*pack_rows(splits, columns, pad_multiple)), first_token, WORDS)
    return tf.nest.map_structure(tf.constant, result)


def padded(rows, length):
    return np.stack([np.pad(row, (0, length - len(row))) for row in rows])


def model_of(blocks=2, dropout=0.0):
    keras.utils.set_random_seed(1)
    model = SepCNN(WORDS, 3, embedding=10, blocks=blocks, filters=8, dropout=dropout, seed=3)
    for number, variable in enumerate(model.trainable_variables):
        if variable.name == "bias":  # zeros would hide what is left in a gap
            variable.assign(np.random.default_rng(number).normal(size=variable.shape))
    return model


def gradients_of(model, inputs, upstream):
    """Outputs, and the gradients of sum(outputs * upstream) by variable."""
    with tf.GradientTape() as tape:
        outputs = model(inputs)
        loss = tf.reduce_sum(outputs * upstream)
    variables = model.trainable_variables
    gradients = tape.gradient(loss, [v.value for v in variables])
    return outputs.numpy(), {v.path: tf.convert_to_tensor(g).numpy() for v, g in zip(variables, gradients, strict=True)}


def stock_layers(model):
    """Keras' layers with the same weights, and for each of their weights the variable of ours that it is."""
    embedding = keras.layers.Embedding(*model.embedding.table.shape)
    embedding.build()
    embedding.set_weights(model.embedding.get_weights())
    layers, ours = [embedding], [model.embedding.table]
    for pair in zip(model.first_convolutions, model.second_convolutions, strict=True):
        for convolution in pair:
            layer = keras.layers.SeparableConv1D(convolution.filters, 3, padding="same", activation="relu")
            layer.build((None, None, convolution.channels))
            depthwise, pointwise, bias = convolution.get_weights()
            layer.set_weights([depthwise[:, :, np.newaxis], pointwise[np.newaxis], bias])
            layers.append(layer)
            ours += convolution.weights
        layers.append("pool")
    layers[-1] = keras.layers.GlobalAveragePooling1D()
    return [*layers, model.classifier], [*ours, *model.classifier.weights]


def stock_outputs(layers, row):
    x = row[np.newaxis]
    for layer in layers:
        if layer == "pool":  # the last window takes what words there are
            x = keras.layers.MaxPooling1D(3)(keras.layers.ZeroPadding1D((0, -x.shape[1] % 3))(x))
        else:
            x = layer(x)
    return x


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_each_text_is_computed_as_if_it_were_alone_and_unpadded(blocks):
    model, rows = model_of(blocks), texts()
    upstream = np.random.default_rng(5).normal(size=(len(rows), 3))
    outputs, gradients = gradients_of(model, packed(rows, model.pad_multiple), upstream)
    layers, ours = stock_layers(model)
    weights = [w.value for layer in layers if layer != "pool" for w in layer.trainable_weights]
    with tf.GradientTape() as tape:
        alone = tf.concat([stock_outputs(layers, row) for row in rows], axis=0)
        loss = tf.reduce_sum(alone * upstream)
    np.testing.assert_allclose(outputs, alone, atol=1e-12)
    assert len(weights) == len(ours) == len(gradients)
    for variable, expected in zip(ours, tape.gradient(loss, weights), strict=True):
        expected = tf.reshape(tf.convert_to_tensor(expected), variable.shape)
        np.testing.assert_allclose(gradients[variable.path], expected, atol=1e-12)


@pytest.mark.parametrize("length", [60, 61, 77])
def test_padding_changes_nothing(length):
    model, rows = model_of(), [*texts(), EMPTY]
    upstream = np.random.default_rng(5).normal(size=(len(rows), 3))
    outputs, gradients = gradients_of(model, packed(rows, model.pad_multiple), upstream)
    again, of_padded = gradients_of(model, padded(rows, length), upstream)
    np.testing.assert_allclose(again, outputs, atol=1e-13)
    for path, gradient in gradients.items():
        np.testing.assert_allclose(of_padded[path], gradient, atol=1e-13)


@pytest.mark.parametrize("rows", [[EMPTY], [EMPTY, EMPTY], [EMPTY, *texts([4]), EMPTY]])
def test_a_text_without_words_has_the_mean_0(rows):
    model = model_of()
    outputs, gradients = gradients_of(model, packed(rows, model.pad_multiple), np.ones((len(rows), 3)))
    np.testing.assert_allclose(outputs[0], model.classifier(np.zeros((1, 16)))[0], atol=1e-15)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients.values())


def test_no_gradient_reaches_the_vector_of_no_word():
    model = model_of()
    assert np.count_nonzero(model.embedding.table[0]) == 0
    assert np.count_nonzero(model.embedding.table[1:]) == (WORDS - 1) * 10
    for rows in (packed(texts(), model.pad_multiple), padded(texts(), 70)):
        _, gradients = gradients_of(model, rows, np.ones((len(LENGTHS), 3)))
        assert np.count_nonzero(gradients[model.embedding.table.path][0]) == 0


def dropped(model, rows, position, first_token):
    """Outputs in training, dropout on, of a batch that stands at `position`."""
    batch = Batch(None, None, None, tf.constant(2, tf.int64), tf.constant(position, tf.int64), None, None, None)
    with feeding(batch):
        return model(
            rows if first_token is None else packed(rows, model.pad_multiple, first_token), training=True
        ).numpy()


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_dropout_is_the_same_however_the_batch_is_divided(blocks):
    model, rows = model_of(blocks, dropout=0.3), [*texts(), EMPTY, *texts([7])]
    num_tokens = np.array([(-(-len(row) // model.pad_multiple) + 1) * model.pad_multiple for row in rows])
    starts = 3**20 + np.cumsum([0, *num_tokens])
    whole = dropped(model, rows, 40, starts[0])
    cuts = [0, 1, 4, 10, 11]
    pieces = [dropped(model, rows[a:b], 40 + a, starts[a]) for a, b in itertools.pairwise(cuts)]
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-13)
    elsewhere = dropped(model, rows, 40, starts[1])
    assert (np.abs(whole - elsewhere).max() > 1e-3) == (blocks > 1)  # one block has no dropout over packed tokens
    of_padded = [dropped(model, padded(rows[a:b], 70), 40 + a, None) for a, b in ((0, 11), (0, 3), (3, 11))]
    np.testing.assert_allclose(np.concatenate(of_padded[1:]), of_padded[0], atol=1e-13)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras reading its own variables
@pytest.mark.parametrize("classes", [2, 3])
def test_a_saved_model_predicts_the_same(tmp_path, classes):
    model = SepCNN(WORDS, classes, embedding=10, blocks=3, filters=4, seed=3)
    inputs = padded(texts(), 60)
    outputs = model(inputs).numpy()
    assert outputs.shape == (len(LENGTHS), 1 if classes == 2 else classes)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.get_config() == model.get_config()
    np.testing.assert_allclose(again.predict(inputs, verbose=0), outputs, atol=1e-13)
