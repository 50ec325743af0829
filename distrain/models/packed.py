"""Layers over packed rows of words (`WordRows`): the work is proportional to the number of words.

Decides: how a convolution, a pooling and a mean keep rows apart. Never: how rows are packed (`data/row_kernels.py`).

    is_word = word_mask(rows.words, tf.float32)
    x = PackedSeparableConv1D(64, 200)(WordEmbedding(20_002, 200)(rows), is_word)
    x, is_word = max_pool(x, is_word)
    means = mean_of_rows(x, is_word, rows.row_ids)

Rows lie one after the other along one axis, `[packed_tokens, channels]`, with padding tokens between them. Every layer
writes zeros to padding tokens. So at the ends of a row the next layer sees the same zeros as for a row alone. A pooling
window never spans two rows, because each row begins at a multiple of `pad_multiple` tokens.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from distrain.batch import WordRows, current_batch

KERNEL_SIZE = 3  # tokens that a convolution reads: one padding token keeps rows apart
POOL_SIZE = 3
STRIDES = [1, 1, 1, 1]


def pack_padded(words: Any, pad_multiple: int) -> WordRows:
    """Return rows that are padded with 0 at the end as packed rows of one length.

    Args:
        words: int `[b, length]`.
        pad_multiple: see `WordRows`.
    """
    num_rows, length = tf.unstack(tf.shape(words))
    chunks_of_row = (length + pad_multiple - 1) // pad_multiple + 1
    padded = tf.pad(words, [[0, 0], [0, chunks_of_row * pad_multiple - length]])
    row_ids = tf.repeat(tf.range(num_rows), chunks_of_row)
    batch = current_batch()
    first_token = tf.cast(chunks_of_row * pad_multiple, tf.int64) * (0 if batch is None else batch.first_position)
    return WordRows(tf.reshape(padded, [-1]), row_ids, first_token, None, None, None)


def word_mask(words: Any, dtype: Any) -> Any:
    """Return `[packed_tokens, 1]`: 1 for a word, 0 for padding."""
    return tf.cast(tf.not_equal(words, 0), dtype)[:, tf.newaxis]


def max_pool(x: Any, is_word: Any) -> tuple[Any, Any]:
    """Return the maximum of every `POOL_SIZE` tokens of values >= 0, and the mask of the pooled tokens.

    The last window of a row may include padding tokens, whose zeros change no maximum of values >= 0.

    Args:
        x: `[packed_tokens, channels]`; `POOL_SIZE` divides packed_tokens.
        is_word: `[packed_tokens, 1]`.
    """
    image = tf.reshape(x, (1, -1, POOL_SIZE, x.shape[1]))  # cores divide windows (rows)
    pooled = tf.nn.max_pool2d(image, (1, POOL_SIZE), (1, POOL_SIZE), "VALID")
    return tf.reshape(pooled, (-1, x.shape[1])), is_word[::POOL_SIZE]


def mean_of_rows(x: Any, is_word: Any, row_ids: Any) -> Any:
    """Return the mean over each row's words, `[b, channels]`; 0 for a row without words.

    Args:
        x: `[packed_tokens, channels]`, 0 for padding.
        is_word: `[packed_tokens, 1]`.
        row_ids: int32 `[packed_tokens]`, ascending: the row of each token.
    """
    return tf.math.divide_no_nan(tf.math.segment_sum(x, row_ids), tf.math.segment_sum(is_word, row_ids))


@keras.saving.register_keras_serializable("distrain")
class WordEmbedding(keras.layers.Layer):
    """A vector for each word; zeros for id 0, which is padding.

    Row 0 of the table stays zero, because row 0 receives no gradient.

    Args:
        vocabulary_size: word ids are below it.
        units: width of a vector.
    """

    def __init__(self, vocabulary_size: int, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.units = units
        shape = (vocabulary_size, units)
        self.table = self.add_weight(shape=shape, initializer=_uniform_but_for_the_first, name="table")
        self.table.rows_are_summed = True  # its gradient names each row once, so replicas may sum rows
        self.built = True

    def call(self, rows: WordRows) -> Any:
        """Return `[packed_tokens, units]`."""
        table = tf.convert_to_tensor(self.table)
        if rows.order is None:
            return tf.gather(table, rows.words) * word_mask(rows.words, table.dtype)
        return _embedded(table, rows)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of `__init__`."""
        return {**super().get_config(), "vocabulary_size": self.vocabulary_size, "units": self.units}


def _uniform_but_for_the_first(shape: tuple[int, ...], dtype: Any = None) -> Any:
    """Return the initial values of `keras.layers.Embedding`, with zeros in row 0."""
    values = keras.initializers.RandomUniform(-0.05, 0.05)(shape, dtype)
    return tf.concat([tf.zeros_like(values[:1]), values[1:]], axis=0)


def _embedded(table: Any, rows: WordRows) -> Any:
    @tf.custom_gradient
    def embedded(table: Any) -> Any:
        def gradient(upstream: Any) -> Any:
            of_touched = tf.sparse.segment_sum(upstream, rows.order, rows.segments)
            return tf.IndexedSlices(of_touched, rows.touched, tf.shape(table))

        return tf.gather(table, rows.words), gradient

    return embedded(table)


@keras.saving.register_keras_serializable("distrain")
class PackedSeparableConv1D(keras.layers.Layer):
    """`keras.layers.SeparableConv1D(filters, 3, padding="same", activation="relu")` over each packed row alone.

    The initial depthwise kernels keep the variance of their input (LeCun uniform for `KERNEL_SIZE` inputs); the initial
    pointwise kernels are He uniform.

    Args:
        filters: channels of the output.
        channels: channels of the input.
    """

    def __init__(self, filters: int, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.channels = channels
        limit = (3 / KERNEL_SIZE) ** 0.5
        spread = keras.initializers.RandomUniform(-limit, limit)
        self.depthwise = self.add_weight(shape=(KERNEL_SIZE, channels), initializer=spread, name="depthwise")
        self.pointwise = self.add_weight(shape=(channels, filters), initializer="he_uniform", name="pointwise")
        self.bias = self.add_weight(shape=(filters,), initializer="zeros", name="bias")
        self.built = True

    def call(self, x: Any, is_word: Any) -> Any:
        """Return `[packed_tokens, filters]`, zeros for padding.

        Args:
            x: `[packed_tokens, channels]`, zeros for padding.
            is_word: `[packed_tokens, 1]`: 1 for a word, 0 for padding.
        """
        return _separable_conv(x, *map(tf.convert_to_tensor, (self.depthwise, self.pointwise, self.bias)), is_word)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of `__init__`."""
        return {**super().get_config(), "filters": self.filters, "channels": self.channels}


@tf.custom_gradient
def _separable_conv(x: Any, depthwise: Any, pointwise: Any, bias: Any, is_word: Any) -> Any:
    """Return depthwise and pointwise product, bias and relu, with zeros for padding.

    The custom gradient saves a multiplication by the mask and one stored tensor: the gradient of relu is already 0
    for padding.
    """
    kernel = depthwise[tf.newaxis, :, :, tf.newaxis]  # height 1, width 3: the tokens are the pixels of one row
    image = x[tf.newaxis, tf.newaxis]
    mixed = tf.reshape(tf.nn.depthwise_conv2d(image, kernel, STRIDES, "SAME"), tf.shape(x))
    y = tf.nn.relu(tf.nn.bias_add(tf.matmul(mixed, pointwise), bias)) * is_word

    def gradient(upstream: Any) -> Any:
        of_sums = tf.raw_ops.ReluGrad(gradients=upstream, features=y)
        of_mixed = tf.matmul(of_sums, pointwise, transpose_b=True)[tf.newaxis, tf.newaxis]
        same = {"out_backprop": of_mixed, "strides": STRIDES, "padding": "SAME"}
        of_x = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(input_sizes=tf.shape(image), filter=kernel, **same)
        of_kernel = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(input=image, filter_sizes=kernel.shape, **same)
        of_pointwise = tf.transpose(tf.matmul(of_sums, mixed, transpose_a=True))  # transposed: 4% of a step faster
        of_bias = tf.raw_ops.BiasAddGrad(out_backprop=of_sums)
        return tf.reshape(of_x, tf.shape(x)), tf.reshape(of_kernel, depthwise.shape), of_pointwise, of_bias, None

    return y, gradient
