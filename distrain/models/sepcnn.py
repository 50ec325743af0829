"""The sequence model: separable convolutions over word ids.

Decides: its layers and their sizes. Never: how it is trained.

    model = build_sepcnn(vocabulary_size=20_002, length=500, num_classes=4, seed=7)
    probabilities = model(word_ids)    # int32 [b, length], padded with 0

Layers and sizes are those of Google's text classification guide: embedding(200), then `blocks - 1` blocks of dropout,
two separable convolutions (filters, kernel 3) and max pooling, then two separable convolutions of twice the filters,
global average, dropout and softmax; one sigmoid unit for two classes. The guide's initial depthwise kernels (uniform
within 0.05) let the signal die out over four convolutions, so that training starts with a long plateau, which early
stopping takes for the end; kernels that keep its variance are used instead.
"""

from __future__ import annotations

import keras

from distrain.models.layers import PositionalDropout


def build_sepcnn(
    vocabulary_size: int,
    length: int,
    num_classes: int,
    *,
    embedding: int = 200,
    blocks: int = 2,
    filters: int = 64,
    kernel_size: int = 3,
    pool_size: int = 3,
    dropout: float = 0.2,
    seed: int = 0,
) -> keras.Model:
    """The model, built.

    Args:
        vocabulary_size: word ids are below it; 0 is padding.
        length: words per row.
        num_classes: classes, at least 2.
        embedding: width of a word's vector.
        blocks: blocks of two convolutions, the last one without pooling.
        filters: of each convolution, doubled in the last block.
        kernel_size: words a convolution sees.
        pool_size: words pooled into one.
        dropout: share dropped.
        seed: of the dropout masks.
    """
    depthwise_limit = (3 / kernel_size) ** 0.5  # LeCun's uniform for the kernel_size inputs of a depthwise output

    def convolution(width: int) -> keras.layers.Layer:
        return keras.layers.SeparableConv1D(
            width,
            kernel_size,
            activation="relu",
            padding="same",
            depthwise_initializer=keras.initializers.RandomUniform(-depthwise_limit, depthwise_limit),
            pointwise_initializer="he_uniform",
        )

    inputs = keras.Input((length,), dtype="int32")
    x = keras.layers.Embedding(vocabulary_size, embedding)(inputs)
    for block in range(blocks - 1):
        x = PositionalDropout(dropout, seed=seed, stream=block)(x)
        x = convolution(filters)(x)
        x = convolution(filters)(x)
        if x.shape[1] >= pool_size:  # rows may be shorter than the pool
            x = keras.layers.MaxPooling1D(pool_size)(x)
    x = convolution(2 * filters)(x)
    x = convolution(2 * filters)(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    x = PositionalDropout(dropout, seed=seed, stream=blocks)(x)
    outputs, activation = (1, "sigmoid") if num_classes == 2 else (num_classes, "softmax")
    return keras.Model(inputs, keras.layers.Dense(outputs, activation=activation)(x), name="sepcnn")
