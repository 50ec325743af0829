"""Layers whose `adapt` learns from data what their variables or their configuration do not hold.

Decides: how a model that is rebuilt, resumed or joined to other ranks gets what these layers learned. Never: adapts.

    hold_vocabularies(model)            # once the user has built the model: its configuration holds all vocabularies
    take_variables(model)               # once its variables are set: `Normalization` normalizes by its new variables

A `.keras` file holds a vocabulary as a file of its own. After loading, Keras computes the constants of `Normalization`
again.
"""

from __future__ import annotations

from typing import Any

import keras

from distrain.keras_backend.private_names import all_layers


def hold_vocabularies(model: Any) -> None:
    """Put the vocabulary that a lookup layer learned into its configuration, as if the user had given it."""
    for layer in all_layers(model):
        if not isinstance(layer, keras.layers.IntegerLookup) or layer.get_config()["vocabulary"] is not None:
            continue
        vocabulary = layer.get_vocabulary(include_special_tokens=False)
        if vocabulary:  # else the layer has learned nothing, and its first call says so
            layer.input_vocabulary = [int(token) for token in vocabulary]
            if layer.output_mode == "tf_idf":
                first = layer.vocabulary_size() - len(vocabulary)  # Keras weighs unknown words by the mean
                of_words = layer.idf_weights.numpy()[first : first + len(vocabulary)]
                layer.input_idf_weights = of_words.tolist()


def take_variables(model: Any) -> None:
    """Let each `Normalization` compute its constants again from its variables, as Keras does after loading."""
    for layer in all_layers(model):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
