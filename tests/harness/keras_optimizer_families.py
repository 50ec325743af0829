"""Every optimizer and every schedule of Keras, each with arguments that act within a few steps.

Decides: the arguments. Never: which classes exist; the tests read them from Keras.

    OPTIMIZERS["Adam"]()                   # an optimizer
    optimizer_case("Adam", OPTIMIZERS["Adam"])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras_families import GLOBAL_BATCH_SIZE, RAGGED
from keras_oracle import Case

OPT, S = keras.optimizers, keras.optimizers.schedules


class Own(keras.optimizers.SGD):
    """An optimizer of a user's own, unregistered: half of a step of SGD."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update by half the gradient."""
        super().update_step(gradient * 0.5, variable, learning_rate)


class WarmUp(S.LearningRateSchedule):
    """A schedule of a user's own, unregistered and without `get_config`."""

    def __call__(self, step: Any) -> Any:
        """Return a rate that rises for ten steps."""
        return 0.05 * keras.ops.minimum(1.0, (keras.ops.cast(step, "float32") + 1) / 10)


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "Adadelta": lambda: OPT.Adadelta(1.0),
    "Adafactor": lambda: OPT.Adafactor(0.05),
    "Adagrad": lambda: OPT.Adagrad(0.05, clipnorm=0.2),
    "Adam": lambda: OPT.Adam(0.05, amsgrad=True, global_clipnorm=0.5),
    "AdamW": lambda: OPT.AdamW(0.05, weight_decay=0.02, clipvalue=0.1),
    "Adamax": lambda: OPT.Adamax(0.05),
    "Ftrl": lambda: OPT.Ftrl(0.05, l1_regularization_strength=0.01),
    "Lamb": lambda: OPT.Lamb(0.05),
    "Lion": lambda: OPT.Lion(0.01),
    "LossScaleOptimizer": lambda: OPT.LossScaleOptimizer(OPT.Adam(0.05), initial_scale=1024.0, dynamic_growth_steps=2),
    "MultiOptimizer": lambda: OPT.MultiOptimizer(OPT.OptimizerMap(OPT.SGD(0.1), {".*bias": OPT.Adam(0.05)})),
    "Muon": lambda: OPT.Muon(0.05),
    "Nadam": lambda: OPT.Nadam(0.05),
    "Optimizer": lambda: Own(0.1),  # the base class: a user's own
    "OptimizerMap": lambda: OPT.MultiOptimizer(OPT.OptimizerMap(OPT.Adam(0.05))),
    "RMSprop": lambda: OPT.RMSprop(0.05, momentum=0.5, centered=True),
    "SGD": lambda: OPT.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "ScheduleFreeAdamW": lambda: OPT.ScheduleFreeAdamW(0.05),
}
SCHEDULES: dict[str, Callable[[], Any]] = {
    "CosineDecay": lambda: S.CosineDecay(0.02, 5, warmup_target=0.05, warmup_steps=2),
    "CosineDecayRestarts": lambda: S.CosineDecayRestarts(0.05, 2),
    "ExponentialDecay": lambda: S.ExponentialDecay(0.05, 2, 0.5),
    "InverseTimeDecay": lambda: S.InverseTimeDecay(0.05, 2, 0.5),
    "LearningRateSchedule": WarmUp,  # the base class: a user's own
    "PiecewiseConstantDecay": lambda: S.PiecewiseConstantDecay([1, 3], [0.05, 0.02, 0.01]),
    "PolynomialDecay": lambda: S.PolynomialDecay(0.05, 4),
}


def optimizer_case(words: str, make: Callable[[], Any]) -> Case:
    """Return a case of one small model with this optimizer."""

    def build() -> Any:
        keras.utils.set_random_seed(5)
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(2)])

    return _case(words, build, make, outputs=None)


def schedule_case(schedules: dict[str, Callable[[], Any]]) -> Case:
    """Return a case of one model with an output for each schedule, whose layer alone follows the schedule."""

    def build() -> Any:
        keras.utils.set_random_seed(5)
        inputs = keras.Input((4,))
        return keras.Model(inputs, {name: keras.layers.Dense(2, name=name)(inputs) for name in schedules})

    def make() -> Any:
        of_layers = {f"{name}/.*": OPT.SGD(schedule()) for name, schedule in schedules.items()}
        return OPT.MultiOptimizer(OPT.OptimizerMap(OPT.SGD(0.0), of_layers))

    return _case("schedules", build, make, outputs=list(schedules))


def _case(words: str, build: Callable[[], Any], optimizer: Callable[[], Any], *, outputs: list[str] | None) -> Case:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(RAGGED, 4)).astype(keras.config.floatx())
    targets = features[:, :2] * 2
    weights = rng.choice([0, 0.5, 1, 3], RAGGED).astype(keras.config.floatx())
    labels = targets if outputs is None else dict.fromkeys(outputs, targets)
    arguments = lambda: {"optimizer": optimizer(), "loss": "mse"}  # noqa: E731 - made anew for each side
    return Case(words, build, arguments, (features, labels, weights), global_batch_size=GLOBAL_BATCH_SIZE)
