"""Random Keras models with data and arguments of `compile` and `fit`, each determined by one number.

Decides: how trunk, outputs, weights and optimizer combine. Never: trains; see `keras_oracle.py`.

    case = random_case(7)
    case.words                # "LSTM; numbers: mse; Adam clipnorm; weights [n]"
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras_oracle import Case
from random_heads import HEADS, Head
from random_trunks import TRUNKS, Options, Trunk

REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight")
OPTIMIZERS = keras.optimizers
SCHEDULES = keras.optimizers.schedules
RATES: dict[str, Callable[[], Any]] = {
    "0.01": lambda: 0.01,
    "cosine decay": lambda: SCHEDULES.CosineDecay(0.02, 9, warmup_target=0.03, warmup_steps=3),
    "exponential decay": lambda: SCHEDULES.ExponentialDecay(0.02, 4, 0.8, staircase=True),
    "a function": lambda: lambda: 0.01,
}
MORE: dict[str, dict[str, Any]] = {
    "": {},
    "clipnorm": {"clipnorm": 0.2},
    "clipvalue": {"clipvalue": 0.02},
    "global_clipnorm": {"global_clipnorm": 0.2},
    "weight_decay": {"weight_decay": 0.01},
    "weight_decay without biases": {"weight_decay": 0.01},
    "use_ema": {"use_ema": True, "ema_momentum": 0.5},
    "use_ema, overwriting": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 4},
}
KINDS = ("SGD", "RMSprop", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax", "Adafactor", "Nadam", "Ftrl", "Lamb")

Rng = np.random.Generator


class Drawn(NamedTuple):
    """One output of a case: a head, its name, the loss, metrics and weighted metrics that were drawn."""

    name: str
    head: Head
    kind: str
    loss: Callable[[], Any]
    metrics: list[Callable[[], Any]]
    weighted_metrics: list[Callable[[], Any]]


def random_case(seed: int) -> Case:
    """Return the case of a seed, of the floating type that Keras is set to."""
    rng = np.random.default_rng(seed)
    kind = _choose(rng, TRUNKS)
    trunk = TRUNKS[kind]
    outputs = [_output(rng, trunk, name) for name in ("first", "second")[: 1 + (rng.random() < 0.3)]]
    form = _choose(rng, ["list", "tuple", "dict"]) if len(outputs) > 1 else ""
    options = Options("l2" if rng.random() < 0.2 else None, "l1" if rng.random() < 0.15 else None, rng.random() < 0.2)
    optimizer_words, optimizer = _optimizer(rng)
    weights_words = _choose(rng, ["no weights", "weights", "weights of outputs", "class weights"])
    if weights_words == "class weights" and not (kind_of_classes(outputs) and not trunk.positions):
        weights_words = "weights"
    if trunk.positions and weights_words == "weights":  # Keras multiplies values [n, positions] by them as they are
        weights_words = "weights of outputs" if form else "weights of positions"
    if weights_words == "weights of outputs" and len(outputs) == 1:
        weights_words = "weights in a column"
    loss_weights = [0.3, 2.0] if form and rng.random() < 0.5 else None

    def data(n: int) -> tuple[Any, ...]:
        features = trunk.features(rng, n)
        labels = _packed(form, outputs, [one.head.labels(rng, n, trunk.positions) for one in outputs])
        weights = _weights(rng, n, weights_words, form, outputs, trunk)
        return (features, labels) if weights is None else (features, labels, weights)

    def build() -> Any:
        keras.utils.set_random_seed(seed)
        inputs, hidden = trunk.layers(options)
        return keras.Model(inputs, _packed(form, outputs, [one.head.output(one.name)(hidden) for one in outputs]))

    def compile_arguments() -> dict[str, Any]:
        weighted = [[make() for make in one.weighted_metrics] for one in outputs]
        arguments = {
            "optimizer": optimizer(),
            "loss": _packed(form, outputs, [one.loss() for one in outputs]),
            "metrics": _packed(form, outputs, [[make() for make in one.metrics] for one in outputs]),
            "weighted_metrics": _packed(form, outputs, weighted),
        }
        if loss_weights:
            arguments["loss_weights"] = _packed(form, outputs, list(loss_weights))
        return arguments

    words = [
        kind,
        *(f"{one.kind} by {_name(one.loss())}" for one in outputs),
        f"a {form} of outputs" if form else "",
        "loss_weights" if loss_weights else "",
        optimizer_words,
        weights_words,
        *(name for name, value in options._asdict().items() if value),
    ]
    train, validation = data(int(rng.integers(25, 47))), data(int(rng.integers(5, 23)))
    fit = {"class_weight": {0: 0.5, 1: 2.0, 2: 1.5}} if weights_words == "class weights" else {}
    if fit:
        validation = validation[:2]
    return Case("; ".join(filter(None, words)), build, compile_arguments, train, validation, fit)


def kind_of_classes(outputs: list[Drawn]) -> bool:
    """Return whether the outputs are one class per example."""
    return len(outputs) == 1 and outputs[0].kind in ("classes", "one-hot classes", "yes or no")


def _choose(rng: Rng, choices: Any) -> Any:
    found = list(choices)
    return found[int(rng.integers(len(found)))]


def _some(rng: Rng, choices: tuple[Any, ...]) -> list[Any]:
    return [choice for choice in choices if rng.random() < 0.4]


def _output(rng: Rng, trunk: Trunk, name: str) -> Drawn:
    kinds = [kind for kind, head in HEADS.items() if head.positions != (not trunk.positions)]
    kind = _choose(rng, kinds)
    head = HEADS[kind]
    make, reduction = _choose(rng, head.losses), _choose(rng, REDUCTIONS)
    # A masked output has one weight per position, and these metrics take one per value.
    metrics = () if trunk.positions and kind == "one-hot classes" else head.metrics
    return Drawn(name, head, kind, lambda: make(reduction), _some(rng, metrics), _some(rng, metrics[:2]))


def _optimizer(rng: Rng) -> tuple[str, Callable[[], Any]]:
    name, rate, more = _choose(rng, KINDS), _choose(rng, RATES), _choose(rng, MORE)

    def make() -> Any:
        optimizer = getattr(OPTIMIZERS, name)(RATES[rate](), **MORE[more])
        if more.endswith("without biases"):
            optimizer.exclude_from_weight_decay(var_names=["bias"])
        return optimizer

    return f"{name}, rate {rate}" + (f", {more}" if more else ""), make


def _packed(form: str, outputs: list[Drawn], values: list[Any]) -> Any:
    if not form:
        return values[0]
    if form == "dict":
        return {one.name: value for one, value in zip(outputs, values, strict=True)}
    return tuple(values) if form == "tuple" else values


def _weights(rng: Rng, n: int, words: str, form: str, outputs: list[Drawn], trunk: Trunk) -> Any:
    """Draw weights of examples, some of them zero; None without weights."""

    def draw(*more: int) -> np.ndarray:
        return rng.choice([0, 0.5, 1, 3], (n, *more)).astype(keras.config.floatx())

    if words in ("no weights", "class weights"):
        return None
    if words == "weights of outputs":
        return _packed(form, outputs, [draw(*([trunk.positions] if trunk.positions else [])) for _ in outputs])
    if words == "weights of positions":
        return draw(trunk.positions)
    return draw(1) if words == "weights in a column" else draw()


def _name(loss: Any) -> str:
    if isinstance(loss, keras.losses.Loss):
        return f"{type(loss).__name__}({loss.reduction})"
    return loss if isinstance(loss, str) else loss.__name__
