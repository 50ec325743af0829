"""Layers that make the shipped models fast on sparse rows and independent of the number of replicas.

Decides: which random numbers dropout draws. Never: where a batch comes from; it reads the current one.

    model = keras.Sequential([PositionalDropout(0.2, seed=7, stream=0), SparseDense(64, 20_000, activation="relu")])
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from distrain.batch import Batch, SparseRows, current_batch
from distrain.errors import ConfigurationError

PHILOX = 1  # the number of the Philox algorithm in TensorFlow's stateless random operations
GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, the increment of splitmix64


@keras.saving.register_keras_serializable("distrain")
class PositionalDropout(keras.layers.Layer):
    """Dropout whose mask is a function of (seed, stream, epoch, position of the example in the epoch).

    Each replica draws just its own slice of that mask, so training does not depend on how many replicas share the
    global batch. Kept values are scaled by 1 / (1 - rate).

    Dense inputs `[b, ...]` take the Philox stream with key = seed and counter = (position * units / 4, epoch, stream),
    four numbers to a counter: skipping ahead costs nothing. Entries of `SparseRows` take a splitmix64 hash of (seed,
    stream, epoch, position, column), as their number before a batch is not known; entries that are absent stay absent.

    Args:
        rate: share dropped, 0 <= rate < 1.
        seed: of the run.
        stream: another number for each dropout layer of a model, 0 .. 2**16 - 1.
    """

    def __init__(self, rate: float, *, seed: int, stream: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ConfigurationError(f"The dropout rate is {rate!r}, but it must be at least 0 and below 1.")
        self.rate = rate
        self.seed = seed
        self.stream = stream

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Apply the mask in training; return `inputs` as they are otherwise."""
        if not training or self.rate == 0:
            return inputs
        batch = current_batch()
        if batch is None:
            raise ConfigurationError(
                "PositionalDropout was called in training outside distrain's loop, which knows the position of each "
                "example. Train with distrain.fit, or use keras.layers.Dropout."
            )
        if isinstance(inputs, SparseRows):
            keep = self._keep_entries(inputs, batch)
            values = tf.where(keep, inputs.values / (1 - self.rate), tf.zeros_like(inputs.values))
            return inputs._replace(values=values)
        keep = self._keep_dense(inputs, batch)
        return tf.where(keep, inputs / (1 - self.rate), tf.zeros_like(inputs))

    def _keep_dense(self, inputs: Any, batch: Batch) -> Any:
        units = int(np.prod(inputs.shape[1:]))
        shape = tf.shape(inputs)
        count = shape[0] * units
        first = tf.cast(batch.first_position, tf.int64) * units
        skip = 0 if units % 4 == 0 else tf.cast(first % 4, tf.int32)
        stream = tf.cast(batch.epoch, tf.int64) * 2**16 + self.stream
        uniform = tf.raw_ops.StatelessRandomUniformV2(
            shape=[count + skip],
            key=tf.constant([self.seed % 2**64], tf.uint64),
            counter=tf.cast(tf.stack([first // 4, stream]), tf.uint64),
            alg=PHILOX,
        )
        if units % 4 != 0:
            uniform = uniform[skip:]
        return tf.reshape(uniform >= self.rate, shape)

    def _keep_entries(self, rows: SparseRows, batch: Batch) -> Any:
        high = self.seed >> 48  # the bits of a large seed that the first term shifts out
        salt = ((self.seed * 2**16 + self.stream + 1) * GOLDEN + high * 2**32) % 2**64
        epoch = _mix(tf.cast(batch.epoch, tf.uint64) + tf.constant(salt, tf.uint64))
        position = tf.cast(batch.first_position + tf.cast(rows.row_ids, tf.int64), tf.uint64)
        mixed = _mix(
            tf.bitwise.bitwise_xor(position * tf.constant(2**32, tf.uint64) + tf.cast(rows.columns, tf.uint64), epoch)
        )
        return mixed >= tf.constant(int(self.rate * 2**64), tf.uint64)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return what `__init__` needs."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed, "stream": self.stream}


def _mix(x: Any) -> Any:
    """The finalizer of splitmix64 (Steele, Lea, Flood 2014) on uint64."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(shift, tf.uint64)))
        x = x * tf.constant(factor, tf.uint64)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(31, tf.uint64)))


@keras.saving.register_keras_serializable("distrain")
class SparseDense(keras.layers.Layer):
    """A dense layer over `SparseRows`; also takes a `tf.SparseTensor` or a dense tensor `[b, num_features]`.

    On `SparseRows` both products are sums over neighbours: forward over the entries of a row, backward over the
    entries of a column in the column order that came with the batch: the gradient holds the touched rows only.

    Args:
        units: width of the output.
        num_features: width of the input.
        activation: as in `keras.layers.Dense`.
    """

    def __init__(self, units: int, num_features: int, *, activation: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.num_features = num_features
        self.activation = keras.activations.get(activation)
        self.kernel = self.add_weight(shape=(num_features, units), initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=(units,), initializer="zeros", name="bias")
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Return activation(inputs @ kernel + bias), `[b, units]`."""
        kernel = tf.convert_to_tensor(self.kernel)
        if isinstance(inputs, SparseRows):
            product = _sparse_product(inputs, kernel)
        elif isinstance(inputs, tf.SparseTensor):
            product = tf.sparse.sparse_dense_matmul(inputs, kernel)
        else:
            product = tf.matmul(inputs, kernel)
        return self.activation(product + tf.convert_to_tensor(self.bias))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return `(b, units)`."""
        return (input_shape[0], self.units)

    def get_config(self) -> dict[str, Any]:
        """Return what `__init__` needs."""
        activation = keras.activations.serialize(self.activation)
        own = {"units": self.units, "num_features": self.num_features, "activation": activation}
        return {**super().get_config(), **own}


def _sparse_product(rows: SparseRows, kernel: Any) -> Any:
    @tf.custom_gradient
    def product(values: Any, kernel: Any) -> Any:
        picked = tf.gather(kernel, rows.columns)
        result = tf.math.segment_sum(picked * values[:, tf.newaxis], rows.row_ids)

        def gradient(upstream: Any) -> Any:
            entries = tf.gather(upstream, tf.gather(rows.row_ids, rows.order))
            entries *= tf.gather(values, rows.order)[:, tf.newaxis]
            touched = tf.math.segment_sum(entries, rows.segments)
            of_kernel = tf.IndexedSlices(touched, rows.touched, tf.shape(kernel))
            of_values = tf.reduce_sum(tf.gather(upstream, rows.row_ids) * picked, axis=1)
            return of_values, of_kernel

        return result, gradient

    return product(tf.cast(rows.values, kernel.dtype), kernel)
