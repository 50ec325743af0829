"""The model of a run, with its optimizer, loss and metrics.

Decides: the defaults for classification, and how distrain finds a user's function. Never: trains or restores.

    built = text_model("ngram", num_features=20_000, num_classes=4, config=config)
    built = user_model(find_function("package.module:build_model"))
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from distrain.config import DROPOUT_RATES, TrainConfig
from distrain.errors import ConfigurationError
from distrain.models.optimizers import ChooseOptimizer, default_optimizer


@dataclass(frozen=True)
class CompiledModel:
    """A model with its optimizer, loss and metrics, made in the scope of the distribution.

    Attributes:
        model: a Keras model, built or not.
        optimizer: a Keras optimizer that no other model uses.
        loss: a `keras.losses.Loss` or a function (labels, outputs) -> `[b, ...]`.
        metrics: names or Keras metrics.
    """

    model: Any
    optimizer: Any
    loss: Any
    metrics: Sequence[Any]


def text_model(
    kind: str,
    *,
    num_features: int,
    num_classes: int,
    config: TrainConfig,
    choose_optimizer: ChooseOptimizer = default_optimizer,
) -> CompiledModel:
    """Return the shipped model for prepared text: `NgramMLP` for n-grams, `SepCNN` for sequences."""
    dropout = dropout_rate(config, kind)
    if kind == "ngram":
        from distrain.models.ngram_mlp import NgramMLP

        model = NgramMLP(num_features, num_classes, units=config.units, seed=config.seed, dropout=dropout)
    else:
        from distrain.models.sepcnn import SepCNN

        model = SepCNN(
            num_features,
            num_classes,
            embedding=config.embedding,
            blocks=config.blocks,
            filters=config.filters,
            seed=config.seed,
            dropout=dropout,
        )
    loss = keras.losses.BinaryCrossentropy() if num_classes == 2 else keras.losses.SparseCategoricalCrossentropy()
    return CompiledModel(model, choose_optimizer(None), loss, ["accuracy"])


def dropout_rate(config: TrainConfig, kind: str) -> float:
    """Return the fraction that a shipped model drops: as configured, else the default of its kind."""
    return DROPOUT_RATES[kind] if config.dropout is None else config.dropout


def user_model(
    build_model: Callable[[], Any],
    *,
    optimizer: Any = None,
    loss: Any = None,
    metrics: Sequence[Any] | None = None,
    choose_optimizer: ChooseOptimizer = default_optimizer,
) -> CompiledModel:
    """Return a user's model. Missing arguments come from `model.compile`, else from defaults: Adam and no metrics.

    Raises:
        ConfigurationError: the function returns no Keras model, or there is no loss, or a setting has no effect.
    """
    model = build_model()
    if not isinstance(model, keras.Model):
        raise ConfigurationError(f"build_model returned {type(model).__name__}; it must return a keras.Model.")
    compiled = bool(getattr(model, "compiled", False))
    if optimizer is None:
        optimizer = model.optimizer if compiled else None
    elif isinstance(optimizer, keras.optimizers.Optimizer):
        # An optimizer belongs to the scope that created it, so this scope creates a copy with the same settings.
        optimizer = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    else:
        optimizer = keras.optimizers.get(optimizer)
    optimizer = choose_optimizer(optimizer)
    if optimizer.gradient_accumulation_steps:
        raise ConfigurationError(
            "The optimizer has gradient_accumulation_steps, which loses the gradients that remain at the end of an "
            "epoch. Set a larger global batch size instead."
        )
    if loss is None:
        loss = model.loss if compiled else None
    if isinstance(loss, (dict, list, tuple)) or loss is None:
        raise ConfigurationError(
            f"The loss is {loss!r}; give one Keras loss, its name, or a function, to fit or to compile."
        )
    if metrics is None:
        saved = model.get_compile_config() if compiled else None
        metrics = saved["metrics"] if saved else None
    return CompiledModel(model, optimizer, keras.losses.get(loss), list(metrics or []))


def find_function(name: str) -> Callable[..., Any]:
    """Return the function that "package.module:function" names, also from modules in the current folder.

    Raises:
        ConfigurationError: the module or the function does not exist.
    """
    module_name, _, function_name = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"--model {name} cannot be found: {error}. Name it as package.module:function."
        ) from None
    if not callable(function):
        raise ConfigurationError(f"--model {name} is not a function.")
    return function
