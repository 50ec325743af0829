"""Keras models as a user writes them, without distrain; fixed seeds determine the first weights."""

from __future__ import annotations

from typing import Any

import keras


def image_model() -> keras.Model:
    """Functional: convolution over images `[8, 8, 1]`, with a penalty on weights; 3 classes."""
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(6, 3, activation="relu", kernel_initializer=_initial(1))(inputs)
    x = keras.layers.Flatten()(x)
    penalty = keras.regularizers.L2(1e-2)
    x = keras.layers.Dense(16, activation="tanh", kernel_initializer=_initial(2), kernel_regularizer=penalty)(x)
    outputs = keras.layers.Dense(3, activation="softmax", kernel_initializer=_initial(3))(x)
    return keras.Model(inputs, outputs)


class TwoInputs(keras.Model):
    """Subclassed, builds itself on its first call: `numbers` `[4]` and a `word` id to one probability."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = keras.layers.Embedding(11, 5, embeddings_initializer=_initial(4))
        self.hidden = keras.layers.Dense(8, activation="relu", kernel_initializer=_initial(5))
        self.classifier = keras.layers.Dense(1, activation="sigmoid", kernel_initializer=_initial(6))

    def call(self, inputs: dict[str, Any]) -> Any:
        word = self.embedding(inputs["word"])
        joined = keras.ops.concatenate([inputs["numbers"], word], axis=1)
        return self.classifier(self.hidden(joined))


class OneWeightEach(keras.Model):
    """One weight per example, which is its output: training changes a weight each time it sees the example."""

    def __init__(self, num_examples: int) -> None:
        super().__init__()
        self.each = self.add_weight(shape=(num_examples,), initializer="zeros", name="each")

    def call(self, inputs: Any) -> Any:
        return keras.ops.take(self.each, inputs)


def rows_model() -> keras.Model:
    """Stock dense layers over rows `[30]`, which may be sparse; 3 classes."""
    inputs = keras.Input((30,), sparse=True)
    x = keras.layers.Dense(8, activation="relu", kernel_initializer=_initial(7))(inputs)
    outputs = keras.layers.Dense(3, activation="softmax", kernel_initializer=_initial(8))(x)
    return keras.Model(inputs, outputs)


def dropout_model() -> keras.Model:
    """Rows `[30]` with Keras's own dropout, whose random state is a variable of the model."""
    inputs = keras.Input((30,))
    x = keras.layers.Dense(8, activation="relu", kernel_initializer=_initial(9))(inputs)
    x = keras.layers.Dropout(0.3, seed=5)(x)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax", kernel_initializer=_initial(10))(x))


def compiled_image_model() -> keras.Model:
    """The image model, compiled, for the command line."""
    model = image_model()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def text_model(metadata: Any) -> keras.Model:
    """A linear model for prepared text; the metadata gives its width and its classes."""
    inputs = keras.Input((metadata.num_features,), sparse=True)
    outputs = keras.layers.Dense(len(metadata.classes), activation="softmax")(inputs)
    model = keras.Model(inputs, outputs)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _initial(seed: int) -> keras.Initializer:
    return keras.initializers.GlorotUniform(seed=seed)
