"""Layers over packed rows of words, see `WordRows`: what they compute is in proportion to the words there are.

Decides: how a convolution, a pooling and an average keep to their own row. Never: how rows are packed (`data/csr.py`).

    is_word = word_mask(rows.words, tf.float32)
    x = PackedSeparableConv1D(64, 200)(WordEmbedding(20_002, 200)(rows), is_word)
    x, is_word = max_pool(x, is_word)
    means = mean_of_rows(x, is_word, rows.row_ids)

Rows lie one after the other along one axis, `[packed_tokens, channels]`, with gaps between them. Every layer leaves
zeros in the gaps, so that the next one sees at the ends of a row what it would see if the row were alone. A pool's
windows do not straddle rows, as each row begins at a multiple of `pad_multiple` tokens.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from distrain.batch import WordRows, current_batch

KERNEL_SIZE = 3  # slots a convolution sees: a gap of one slot keeps rows apart
POOL_SIZE = 3
STRIDES = [1, 1, 1, 1]


def pack_padded(words: Any, pad_multiple: int) -> WordRows:
    """Rows of words that are padded with 0 at the end, as packed rows; all take the same number of slots.

    Args:
        words: int `[b, length]`.
        pad_multiple: as in `WordRows`.
    """
    num_rows, length = tf.unstack(tf.shape(words))
    chunks_of_row = (length + pad_multiple - 1) // pad_multiple + 1
    padded = tf.pad(words, [[0, 0], [0, chunks_of_row * pad_multiple - length]])
    row_ids = tf.repeat(tf.range(num_rows), chunks_of_row)
    batch = current_batch()
    first_token = tf.cast(chunks_of_row * pad_multiple, tf.int64) * (0 if batch is None else batch.first_position)
    return WordRows(tf.reshape(padded, [-1]), row_ids, first_token, None, None, None)


def word_mask(words: Any, dtype: Any) -> Any:
    """1 where there is a word, 0 in gaps: `[packed_tokens, 1]`."""
    return tf.cast(tf.not_equal(words, 0), dtype)[:, tf.newaxis]


def max_pool(x: Any, is_word: Any) -> tuple[Any, Any]:
    """The maximum of every `POOL_SIZE` slots of values >= 0, and the mask of what is left.

    The last window of a row may be filled up by its gap, whose zeros change no maximum of such values.

    Args:
        x: `[packed_tokens, channels]`; slots divide by `POOL_SIZE`.
        is_word: `[packed_tokens, 1]`.
    """
    image = tf.reshape(x, (1, -1, POOL_SIZE, x.shape[1]))  # a window is a row of pixels: cores share the rows out
    pooled = tf.nn.max_pool2d(image, (1, POOL_SIZE), (1, POOL_SIZE), "VALID")
    return tf.reshape(pooled, (-1, x.shape[1])), is_word[::POOL_SIZE]


def mean_of_rows(x: Any, is_word: Any, row_ids: Any) -> Any:
    """The mean over each row's own slots, `[b, channels]`; 0 for a row without any.

    Args:
        x: `[packed_tokens, channels]`, 0 in gaps.
        is_word: `[packed_tokens, 1]`.
        row_ids: int32 `[packed_tokens]`, ascending: the row of each slot.
    """
    return tf.math.divide_no_nan(tf.math.segment_sum(x, row_ids), tf.math.segment_sum(is_word, row_ids))


@keras.saving.register_keras_serializable("distrain")
class WordEmbedding(keras.layers.Layer):
    """A vector for each word; zeros for id 0, which is no word.

    Row 0 of the table is zero and stays so, as no gradient reaches it.

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
        self.built = True

    def call(self, rows: WordRows) -> Any:
        """Return `[packed_tokens, units]`."""
        table = tf.convert_to_tensor(self.table)
        if rows.order is None:
            return tf.gather(table, rows.words) * word_mask(rows.words, table.dtype)
        return _embedded(table, rows)

    def get_config(self) -> dict[str, Any]:
        """Return what `__init__` needs."""
        return {**super().get_config(), "vocabulary_size": self.vocabulary_size, "units": self.units}


def _uniform_but_for_the_first(shape: tuple[int, ...], dtype: Any = None) -> Any:
    """`keras.layers.Embedding`'s own initial values, but zeros in row 0."""
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

    The initial depthwise kernels keep the variance of their input (LeCun's uniform for `KERNEL_SIZE` inputs), the
    pointwise ones are He's.

    Args:
        filters: channels of the output.
        channels: of the input.
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
        """Return `[packed_tokens, filters]`, zeros in gaps.

        Args:
            x: `[packed_tokens, channels]`, zeros in gaps.
            is_word: `[packed_tokens, 1]`: 1, or 0 in gaps.
        """
        return _separable_conv(x, *map(tf.convert_to_tensor, (self.depthwise, self.pointwise, self.bias)), is_word)

    def get_config(self) -> dict[str, Any]:
        """Return what `__init__` needs."""
        return {**super().get_config(), "filters": self.filters, "channels": self.channels}


@tf.custom_gradient
def _separable_conv(x: Any, depthwise: Any, pointwise: Any, bias: Any, is_word: Any) -> Any:
    """Depthwise and pointwise product, bias and relu; zeros in gaps.

    With a gradient of its own, as that of relu is 0 in gaps already: the mask need not be applied a second time, and
    what it was applied to need not be kept.
    """
    kernel = depthwise[tf.newaxis, :, :, tf.newaxis]  # height 1, width 3: the slots are the pixels of one row
    image = x[tf.newaxis, tf.newaxis]
    mixed = tf.reshape(tf.nn.depthwise_conv2d(image, kernel, STRIDES, "SAME"), tf.shape(x))
    y = tf.nn.relu(tf.nn.bias_add(tf.matmul(mixed, pointwise), bias)) * is_word

    def gradient(upstream: Any) -> Any:
        of_sums = tf.raw_ops.ReluGrad(gradients=upstream, features=y)
        of_mixed = tf.matmul(of_sums, pointwise, transpose_b=True)[tf.newaxis, tf.newaxis]
        same = {"out_backprop": of_mixed, "strides": STRIDES, "padding": "SAME"}
        of_x = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(input_sizes=tf.shape(image), filter=kernel, **same)
        of_kernel = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(input=image, filter_sizes=kernel.shape, **same)
        of_pointwise = tf.transpose(tf.matmul(of_sums, mixed, transpose_a=True))  # the narrow one packed: 4% of a step
        of_bias = tf.raw_ops.BiasAddGrad(out_backprop=of_sums)
        return tf.reshape(of_x, tf.shape(x)), tf.reshape(of_kernel, depthwise.shape), of_pointwise, of_bias, None

    return y, gradient
