"""Arguments of `distrain.fit` for runs of many ranks, on the arrays of `ranks_data.py`; no dropout.

distrain.fit(**arguments("weighted"), epochs=3)
"""

from __future__ import annotations

from typing import Any

import keras
from ranks_data import DATA, LARGE_VOCABULARY, MOMENTUM, SMALL_VOCABULARY, WORDS


def arguments(case: str) -> dict[str, Any]:
    """Return the arguments of `distrain.fit`."""
    build_model, optimizer, *loss = CASES[case]
    return {
        **DATA[case](),
        "build_model": build_model,
        "optimizer": keras.optimizers.deserialize(optimizer),
        "loss": loss[0] if loss else "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
    }


def dense_model() -> keras.Model:
    """Rows `[6]` to 3 classes, with a penalty on weights."""
    penalty = keras.regularizers.L2(1e-2)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, "tanh", kernel_initializer=_initial(1), kernel_regularizer=penalty),
            keras.layers.Dense(3, "softmax", kernel_initializer=_initial(2)),
        ]
    )


def embedding_model(vocabulary: int) -> keras.Model:
    """Word ids `[5]` to 3 classes; the gradient of the embedding is `tf.IndexedSlices`."""
    return keras.Sequential(
        [
            keras.Input((WORDS,), dtype="int32"),
            keras.layers.Embedding(vocabulary, 8, embeddings_initializer=_initial(3)),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(3, "softmax", kernel_initializer=_initial(4)),
        ]
    )


def normalizing_model() -> keras.Model:
    """Rows `[4]` to 3 classes; the batch normalization sees the rows themselves."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.BatchNormalization(momentum=MOMENTUM),
            keras.layers.Dense(3, "softmax", kernel_initializer=_initial(5)),
        ]
    )


def linear_model() -> keras.Model:
    """Rows `[64]` to 80 classes."""
    dense = keras.layers.Dense(80, use_bias=False, kernel_initializer=_initial(6))
    return keras.Sequential([keras.Input((64,)), dense])


def linear_loss(labels: Any, outputs: Any) -> Any:
    """A loss whose gradient does not depend on the weights."""
    return -keras.ops.sum(keras.ops.one_hot(keras.ops.cast(labels, "int32"), 80) * outputs, axis=-1)


def _initial(seed: int) -> keras.Initializer:
    return keras.initializers.GlorotUniform(seed=seed)


def _optimizer(name: str, **settings: Any) -> dict[str, Any]:
    return {"class_name": name, "config": settings}


CASES = {
    # Each step exceeds the bound, so that clipping the gradient of one rank would give other weights.
    "weighted": (dense_model, _optimizer("Adam", learning_rate=1e-2, global_clipnorm=0.05)),
    "words": (lambda: embedding_model(LARGE_VOCABULARY), _optimizer("SGD", learning_rate=0.5, momentum=0.9)),
    "letters": (lambda: embedding_model(SMALL_VOCABULARY), _optimizer("SGD", learning_rate=0.5, momentum=0.9)),
    "normalized": (normalizing_model, _optimizer("SGD", learning_rate=0.1)),
    "linear": (linear_model, _optimizer("SGD", learning_rate=0.1), linear_loss),
}
