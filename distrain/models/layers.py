"""Layers that make the shipped models fast on sparse rows and independent of the number of replicas.

Decides: which random numbers dropout draws. Never: where a batch comes from; layers read the current batch.

    model = keras.Sequential([PositionalDropout(0.2, seed=7, stream=0), SparseDense(64, 20_000, activation="relu")])
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from distrain.batch import Batch, SparseRows, current_batch
from distrain.errors import ConfigurationError
from distrain.models.sparse_product import sparse_product

PHILOX = 1  # the number of the Philox algorithm in TensorFlow's stateless random operations
NUMBERS = 8  # numbers of 16 bits for each value of the Philox counter


@keras.saving.register_keras_serializable("distrain")
class PositionalDropout(keras.layers.Layer):
    """Dropout whose mask is a function of (seed, stream, epoch, position of the example in the epoch).

    Each replica draws only its own slice of the mask, so training does not depend on the number of replicas. The layer
    scales kept values by 1 / (1 - rate).

    Dense inputs `[b, ...]` take the Philox stream with key = seed and counter = (position * units / 8, epoch, stream).
    One counter value yields eight numbers, and skipping ahead costs nothing. Numbers of 16 bits are faster than
    floats and set the rate to within 2**-17 of its value.

    `SparseRows` take one number per entry, counted from the start of the epoch; absent entries stay absent.

    Args:
        rate: fraction of values that become 0; 0 <= rate < 1.
        seed: seed of the run.
        stream: number of this dropout layer in its model, 0 .. 2**16 - 1.
    """

    def __init__(self, rate: float, *, seed: int, stream: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ConfigurationError(f"The dropout rate is {rate!r}, but it must be at least 0 and below 1.")
        self.rate = rate
        self.seed = seed
        self.stream = stream

    def call(self, inputs: Any, training: bool = False, first_row: Any = None) -> Any:
        """Apply the mask in training; otherwise return `inputs` unchanged.

        Args:
            inputs: `[b, ...]`, or `SparseRows`.
            training: whether a training step calls the model.
            first_row: int64 scalar, number of the first row in the epoch if rows of dense inputs are not examples.
                Default: the batch's position.
        """
        if not training or self.rate == 0:
            return inputs
        batch = current_batch()
        if batch is None:
            raise ConfigurationError(
                "PositionalDropout was called in training outside distrain's loop, which knows the position of each "
                "example. Train with distrain.fit, or use keras.layers.Dropout."
            )
        if isinstance(inputs, SparseRows):
            keep = self._keep(inputs.first_entry, tf.size(inputs.columns), batch)
            values = tf.where(keep, inputs.values / (1 - self.rate), tf.zeros_like(inputs.values))
            return inputs._replace(values=values)
        units = int(np.prod(inputs.shape[1:]))
        with _host_of_gpu():
            first = tf.cast(batch.first_position if first_row is None else first_row, tf.int64) * units
        keep = tf.reshape(self._keep(first, tf.size(inputs), batch, multiple=units), tf.shape(inputs))
        return inputs * (tf.cast(keep, inputs.dtype) / (1 - self.rate))  # one pass over inputs, one over gradients

    def _keep(self, first: Any, count: Any, batch: Batch, *, multiple: int = 1) -> Any:
        """Return bool `[count]`: values to keep, by the stream's numbers from `first`, a multiple of `multiple`."""
        with _host_of_gpu():
            skip = 0 if multiple % NUMBERS == 0 else tf.cast(first % NUMBERS, tf.int32)
            stream = tf.cast(batch.epoch, tf.int64) * 2**16 + self.stream
            counter = tf.cast(tf.stack([first // NUMBERS, stream]), tf.uint64)
        bits = tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[(count + skip + 3) // 4],
            key=tf.constant([self.seed % 2**64], tf.uint64),
            counter=counter,
            dtype=tf.uint64,
            alg=PHILOX,
        )
        uniform = tf.reshape(tf.bitcast(bits, tf.uint16), [-1])[skip : skip + count]
        return uniform >= tf.constant(min(round(self.rate * 2**16), 2**16 - 1), tf.uint16)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of `__init__`."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed, "stream": self.stream}


def _host_of_gpu() -> AbstractContextManager[Any]:
    """Compute positions on the host if there is a GPU: shapes depend on them, for which the host would wait."""
    return tf.device("CPU:0") if tf.config.list_logical_devices("GPU") else nullcontext()


@keras.saving.register_keras_serializable("distrain")
class SparseDense(keras.layers.Layer):
    """A dense layer over `SparseRows`; also takes a `tf.SparseTensor` or a dense tensor `[b, num_features]`.

    On `SparseRows` the time is proportional to the number of entries: see `sparse_product.py`.

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
            on_gpu = bool(tf.config.list_logical_devices("GPU"))
            product = sparse_product(inputs, kernel, on_gpu=on_gpu)
        elif isinstance(inputs, tf.SparseTensor):
            product = tf.sparse.sparse_dense_matmul(inputs, kernel)
        else:
            product = tf.matmul(inputs, kernel)
        return self.activation(product + tf.convert_to_tensor(self.bias))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return `(b, units)`."""
        return (input_shape[0], self.units)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of `__init__`."""
        activation = keras.activations.serialize(self.activation)
        own = {"units": self.units, "num_features": self.num_features, "activation": activation}
        return {**super().get_config(), **own}
