"""The lower part of a random model: features of one kind and the layers that read them.

Decides: which layers exist; none that depends on N by design, as dropout does. Never: labels or losses.

    trunk = TRUNKS["lstm"]
    features = trunk.features(np.random.default_rng(0), 37)
    inputs, hidden = trunk.layers(Options())
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

WORDS, LENGTH = 11, 6  # words of the vocabulary, and positions of a sequence

Rng = np.random.Generator
LAYERS = keras.layers


class Options(NamedTuple):
    """Parts that any trunk may have.

    Attributes:
        kernel_regularizer: penalty on the weights of the dense layer.
        activity_regularizer: penalty on the outputs of the dense layer.
        adds_loss: whether a layer adds the mean square of its outputs to the loss.
    """

    kernel_regularizer: str | None = None
    activity_regularizer: str | None = None
    adds_loss: bool = False


class Trunk(NamedTuple):
    """Features and the layers that read them.

    Attributes:
        features: (rng, number of examples) -> features.
        layers: options -> inputs and hidden values, `[b, d]` or `[b, positions, d]`.
        positions: positions of the hidden values; 0 for one vector per example.
        is_masked: whether the hidden values carry a mask of padding.
    """

    features: Callable[[Rng, int], Any]
    layers: Callable[[Options], tuple[Any, Any]]
    positions: int = 0
    is_masked: bool = False


class AddedLoss(keras.layers.Layer):
    """Adds a tenth of the mean square of its inputs to the loss, a mean over examples."""

    supports_masking = True

    def call(self, inputs: Any) -> Any:
        """Return the inputs."""
        self.add_loss(0.1 * keras.ops.mean(keras.ops.square(inputs)))
        return inputs


def floats(*shape: int) -> Callable[[Rng, int], np.ndarray]:
    """Return a function that draws normal numbers `[n, *shape]`."""
    return lambda rng, n: rng.normal(size=(n, *shape)).astype(keras.config.floatx())


def words(rng: Rng, n: int) -> np.ndarray:
    """Draw word ids `[n, LENGTH]`, padded with 0 at the end."""
    lengths = rng.integers(1, LENGTH + 1, (n, 1))
    return np.where(np.arange(LENGTH) < lengths, rng.integers(1, WORDS, (n, LENGTH)), 0).astype(np.int32)


def _dense(x: Any, options: Options) -> Any:
    x = keras.layers.Dense(
        5,
        activation="tanh",
        kernel_regularizer=options.kernel_regularizer,
        activity_regularizer=options.activity_regularizer,
    )(x)
    return AddedLoss()(x) if options.adds_loss else x


def _stack(shape: tuple[int, ...], *make: Callable[[], Any]) -> Callable[[Options], tuple[Any, Any]]:
    def layers(options: Options) -> tuple[Any, Any]:
        inputs = x = keras.Input(shape)
        for layer in make:
            x = layer()(x)
        return inputs, _dense(x, options)

    return layers


def _of_words(mask_zero: bool, *make: Callable[[], Any]) -> Callable[[Options], tuple[Any, Any]]:
    def layers(options: Options) -> tuple[Any, Any]:
        inputs = keras.Input((LENGTH,), dtype="int32")
        x = LAYERS.Embedding(WORDS, 4, mask_zero=mask_zero)(inputs)
        for layer in make:
            x = layer()(x)
        return inputs, _dense(x, options)

    return layers


def _attention(options: Options) -> tuple[Any, Any]:
    inputs = keras.Input((4, 6))
    attended = keras.layers.MultiHeadAttention(2, 3, use_bias=False)(inputs, inputs)  # a key's bias has no gradient
    normal = keras.layers.LayerNormalization()(keras.layers.Add()([inputs, attended]))
    return inputs, _dense(keras.layers.GlobalAveragePooling1D()(normal), options)


def _several(kind: type) -> Callable[[Options], tuple[Any, Any]]:
    def layers(options: Options) -> tuple[Any, Any]:
        numbers, word = keras.Input((3,), name="numbers"), keras.Input((LENGTH,), dtype="int32", name="word")
        inputs = {"numbers": numbers, "word": word} if kind is dict else kind((numbers, word))
        mean = keras.layers.GlobalAveragePooling1D()(LAYERS.Embedding(WORDS, 4)(word))
        return inputs, _dense(keras.layers.Concatenate()([numbers, mean]), options)

    return layers


def _features_of_several(kind: type) -> Callable[[Rng, int], Any]:
    def features(rng: Rng, n: int) -> Any:
        numbers, word = floats(3)(rng, n), words(rng, n)
        return {"numbers": numbers, "word": word} if kind is dict else kind((numbers, word))

    return features


TRUNKS: dict[str, Trunk] = {
    "dense": Trunk(floats(5), _stack((5,), lambda: LAYERS.Dense(6, "gelu"))),
    "convolution over positions": Trunk(
        floats(LENGTH, 3), _stack((LENGTH, 3), lambda: LAYERS.Conv1D(4, 3, activation="tanh"), LAYERS.Flatten)
    ),
    "convolution over images": Trunk(
        floats(5, 5, 2), _stack((5, 5, 2), lambda: LAYERS.Conv2D(3, 3, activation="tanh"), LAYERS.Flatten)
    ),
    "LSTM": Trunk(floats(LENGTH, 3), _stack((LENGTH, 3), lambda: LAYERS.LSTM(4))),
    "GRU of each position": Trunk(
        floats(LENGTH, 3), _stack((LENGTH, 3), lambda: LAYERS.GRU(4, return_sequences=True)), positions=LENGTH
    ),
    "TimeDistributed": Trunk(
        floats(LENGTH, 3), _stack((LENGTH, 3), lambda: LAYERS.TimeDistributed(LAYERS.Dense(4))), positions=LENGTH
    ),
    "mean of embeddings": Trunk(words, _of_words(False, LAYERS.GlobalAveragePooling1D)),
    "masked embeddings, GRU": Trunk(words, _of_words(True, lambda: LAYERS.GRU(4))),
    "masked embeddings, LSTM of each position": Trunk(
        words,
        _of_words(True, lambda: LAYERS.LSTM(4, return_sequences=True)),
        positions=LENGTH,
        is_masked=True,
    ),
    "attention and layer normalization": Trunk(floats(4, 6), _attention),
    "a list of inputs": Trunk(_features_of_several(list), _several(list)),
    "a tuple of inputs": Trunk(_features_of_several(tuple), _several(tuple)),
    "a dict of inputs": Trunk(_features_of_several(dict), _several(dict)),
}
