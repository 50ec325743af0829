"""Trainings on one device that `gpu_checks.py` starts in processes of their own, and compares.

    python tests/gpu/programs.py conv gpu:0
    {"losses": [1.31, 1.08], "device": "gpu:0"}

Each is deterministic in full float32, so a GPU and a CPU differ by the order of sums alone. The data is the same in
each process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import distrain

EXAMPLES, BATCH, EPOCHS = 512, 64, 2


def conv(devices: str, **settings: Any) -> list[float]:
    """Train a convolutional model on images."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, EXAMPLES)
    images = (rng.normal(size=(EXAMPLES, 16, 16, 3)) + labels[:, None, None, None]).astype(np.float32)

    def build() -> keras.Model:
        layers = keras.layers
        first = [keras.Input((16, 16, 3)), layers.Conv2D(16, 3, activation="relu"), layers.MaxPooling2D()]
        last = [layers.Conv2D(32, 3, activation="relu"), layers.GlobalAveragePooling2D()]
        return keras.Sequential([*first, *last, layers.Dense(4, activation="softmax", dtype="float32")])

    return _losses(build, images, labels, devices, **settings)


def embedding(devices: str, **settings: Any) -> list[float]:
    """Train a model with an embedding, whose gradient has few rows."""
    rng = np.random.default_rng(0)
    words = rng.integers(0, 5000, (EXAMPLES, 20)).astype(np.int32)

    def build() -> keras.Model:
        layers = keras.layers
        first = [keras.Input((20,), dtype="int32"), layers.Embedding(5000, 32), layers.GlobalAveragePooling1D()]
        return keras.Sequential([*first, layers.Dense(4, activation="softmax")])

    return _losses(build, words, words[:, 0] % 4, devices, **settings)


def logical(devices: str) -> list[float]:
    """Train the convolutional model on two replicas that share a GPU, as two logical devices."""
    if devices.startswith("cpu"):
        return conv("cpu:2", strategy="mirrored")
    from distrain.distribution import devices as found

    gpu = tf.config.list_physical_devices("GPU")[0]
    half = tf.config.LogicalDeviceConfiguration(memory_limit=4096)
    tf.config.set_logical_device_configuration(gpu, [half, half])
    names = ["GPU:0", "GPU:1"]
    found.local_devices = lambda *_: names  # --devices names physical GPUs alone
    found.models_of = lambda names: ["logical GPU"] * len(names)
    return conv(devices, strategy="mirrored")


def loop(devices: str) -> list[float]:
    """Train the embedding model in calls of five steps, of eight steps an epoch."""
    return embedding(devices, steps_per_execution=5)


def xla(devices: str) -> list[float]:
    """Train the convolutional model with forward and backward pass compiled by XLA, in full float32."""
    tf.config.experimental.enable_tensor_float_32_execution(False)
    return conv(devices, jit_model=True, deterministic=False)  # XLA lacks deterministic variants of some operations


def float16(devices: str) -> list[float]:
    """Train the convolutional model in float16, with the scale that Keras gives the loss."""
    keras.config.set_dtype_policy("mixed_float16")
    return conv(devices)


def bfloat16(devices: str) -> list[float]:
    """Train the convolutional model in bfloat16."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    return conv(devices)


def _losses(build: Callable[[], Any], x: Any, y: Any, devices: str, **settings: Any) -> list[float]:
    fixed = {"epochs": EPOCHS, "global_batch_size": BATCH, "deterministic": True, "verbose": 0}
    learning = {"optimizer": lambda: keras.optimizers.Adam(1e-3), "loss": "sparse_categorical_crossentropy"}
    result = distrain.fit(build, (x, y), devices=devices, **learning, **(fixed | settings))
    return [float(epoch["loss"]) for epoch in result.history]


PROGRAMS = {each.__name__: each for each in (conv, embedding, logical, loop, xla, float16, bfloat16)}

if __name__ == "__main__":
    name, where = sys.argv[1:]
    print(json.dumps({"losses": PROGRAMS[name](where), "device": where}))
