"""The model of a run, with its optimizer, loss and metrics.

Decides: the defaults for classification, and which models of a user distrain serves. Never: trains or restores.

    built = text_model("ngram", num_features=20_000, num_classes=4, config=config)
    built = user_model(build_model)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from distrain.config import DROPOUT_RATES, TrainConfig
from distrain.errors import ConfigurationError
from distrain.keras_backend.private_names import compile_arguments, is_under_strategy, made_in_scope
from distrain.models.adapted_layers import hold_vocabularies
from distrain.models.heads import CLASSES, Head
from distrain.models.optimizers import ChooseOptimizer, default_optimizer
from distrain.models.precision import precision
from distrain.models.weight_count import require_memory

# Methods of a step: a class with its own one trains otherwise than `compile` says.
_OWN_METHODS = ("train_step", "test_step", "make_train_function", "make_test_function", "fit", "evaluate")


def text_model(
    kind: str,
    *,
    num_features: int,
    num_classes: int,
    config: TrainConfig,
    head: Head = CLASSES,
    choose_optimizer: ChooseOptimizer = default_optimizer,
) -> Any:
    """Return the shipped model for prepared text, compiled: `NgramMLP` for n-grams, `SepCNN` for sequences."""
    require_memory(kind, num_features=num_features, num_classes=num_classes, config=config, task=head.task)
    with precision(config.mixed_precision):
        model = _shipped_model(kind, num_features, num_classes, config, head)
    model.compile(choose_optimizer(None), head.loss(num_classes), metrics=head.metrics())
    return model


def _shipped_model(kind: str, num_features: int, num_classes: int, config: TrainConfig, head: Head) -> Any:
    dropout = dropout_rate(config, kind)
    if kind == "ngram":
        from distrain.models.ngram_mlp import NgramMLP

        return NgramMLP(
            num_features, num_classes, units=config.units, seed=config.seed, dropout=dropout, **head.config()
        )
    if kind != "sequence":
        raise ValueError(f"No shipped model reads rows of the kind {kind!r}.")
    from distrain.models.sepcnn import SepCNN

    return SepCNN(
        num_features,
        num_classes,
        embedding=config.embedding,
        blocks=config.blocks,
        filters=config.filters,
        seed=config.seed,
        dropout=dropout,
        **head.config(),
    )


def dropout_rate(config: TrainConfig, kind: str) -> float:
    """Return the fraction that a shipped model drops: as configured, else the default of its kind."""
    return DROPOUT_RATES[kind] if config.dropout is None else config.dropout


def user_model(
    build_model: Callable[[], Any],
    *,
    choose_optimizer: ChooseOptimizer = default_optimizer,
    **given: Any,
) -> Any:
    """Return a user's model, compiled.

    Args:
        build_model: returns a Keras model, compiled or not.
        choose_optimizer: the user's optimizer or None -> the optimizer to train with.
        **given: arguments of `model.compile`; an argument that is missing or None stays as the model was compiled. The
            optimizer may also be a function that makes it.

    Raises:
        ConfigurationError: the function returns no Keras model, there is no loss, or the model trains in a way that
            distrain does not.
    """
    model = build_model()
    if not isinstance(model, keras.Model):
        raise ConfigurationError(f"build_model returned {type(model).__name__}; it must return a keras.Model.")
    for name in _OWN_METHODS:
        if getattr(type(model), name) is not getattr(keras.Model, name):
            raise ConfigurationError(
                f"{type(model).__name__} has its own {name}, which distrain does not run. Override compute_loss in its "
                "place, or train the model by model.fit with distrain.horovod."
            )
    hold_vocabularies(model)
    arguments = compile_arguments(model)
    given = {name: value for name, value in given.items() if value is not None}
    compiled = arguments.get("optimizer")
    own = _optimizer(given["optimizer"]) if "optimizer" in given else _of_scope(compiled)
    optimizer = choose_optimizer(own)
    if given or not arguments or own is not compiled:
        _compile(model, arguments | given | {"optimizer": optimizer})
    _require_served(model)
    return model


def _optimizer(given: Any) -> Any:
    if not isinstance(given, keras.optimizers.Optimizer):
        if callable(given):
            return given()
        try:
            return keras.optimizers.get(given)
        except ValueError as error:
            raise ConfigurationError(f"optimizer={given!r} is none of Keras' optimizers: {error}") from error
    if given.built:
        raise ConfigurationError(
            f"The optimizer {given.name!r} belongs to another model already. Make a new one, or give a function that "
            "makes it: optimizer=lambda: keras.optimizers.Adam(1e-3)."
        )
    return made_in_scope(given)


def _of_scope(compiled: Any) -> Any:
    """Return the optimizer of `compile`, which the user may have made outside the scope of several devices."""
    is_new = isinstance(compiled, keras.optimizers.Optimizer) and not compiled.built
    return made_in_scope(compiled) if is_new else compiled


def _compile(model: Any, arguments: dict[str, Any]) -> None:
    try:
        model.compile(**arguments)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"The model cannot be compiled as asked: {error}") from error


def _require_served(model: Any) -> None:
    """Refuse settings of `model.compile` and of the optimizer that distrain does not serve."""
    arguments = compile_arguments(model)
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if optimizer.gradient_accumulation_steps:
        raise ConfigurationError(
            "The optimizer has gradient_accumulation_steps, which loses the gradients that remain at the end of an "
            "epoch. Set a larger global batch size instead."
        )
    if optimizer.ema_overwrite_frequency and optimizer.use_ema and is_under_strategy():
        raise ConfigurationError(
            "The optimizer has ema_overwrite_frequency, with which Keras fails on several devices of one process. "
            "Leave it out, as the final model holds the averages anyway, or start a process per device."
        )
    if arguments["steps_per_execution"] != 1:
        raise ConfigurationError(
            f"The model is compiled with steps_per_execution={arguments['steps_per_execution']}. Leave this out, and "
            "give --steps-per-execution to distrain."
        )
    if arguments["run_eagerly"]:
        raise ConfigurationError(
            "The model is compiled with run_eagerly=True; distrain compiles each step. Leave it out."
        )
