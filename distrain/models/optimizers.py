"""The optimizer of a run: the user's own, or Adam as the settings ask for.

Decides: the learning rate of each step of Adam, and that no setting of the optimizer is ignored. Never: trains.

    optimizer = make_optimizer(config, num_steps=7_500, num_replicas=4)
    optimizer = choose_optimizer(own, config, num_steps=7_500, num_replicas=4)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras

from distrain.config import DEFAULT_LEARNING_RATE
from distrain.config.optimizer import OptimizerSettings
from distrain.config.setting import settings_of
from distrain.errors import ConfigurationError

ChooseOptimizer = Callable[[Any], Any]  # the user's optimizer or None -> the optimizer of the run


def choose_optimizer(own: Any, config: OptimizerSettings, *, num_steps: int, num_replicas: int) -> Any:
    """Return the user's optimizer, or Adam as `config` asks for if `own` is None.

    Raises:
        ConfigurationError: a setting describes the optimizer, but the user brings one.
    """
    if own is None:
        return make_optimizer(config, num_steps=num_steps, num_replicas=num_replicas)
    given = [one for one in settings_of(OptimizerSettings) if getattr(config, one.name) != one.default]
    if given:
        raise ConfigurationError(
            f"{', '.join(one.option for one in given)}: without effect, because the model brings its own optimizer, "
            f"{type(own).__name__}. Set this there, or leave the optimizer out of compile and fit."
        )
    return own


def default_optimizer(own: Any) -> Any:
    """Return the user's optimizer, or Adam with its default settings if `own` is None."""
    return choose_optimizer(own, OptimizerSettings(), num_steps=1, num_replicas=1)


def make_optimizer(config: OptimizerSettings, *, num_steps: int, num_replicas: int) -> Any:
    """Return Adam for a run of `num_steps` optimizer steps.

    Raises:
        ConfigurationError: a falling schedule has no step left after the warm-up.
    """
    use_ema = {} if config.ema is None else {"use_ema": True, "ema_momentum": config.ema}
    return keras.optimizers.Adam(
        learning_rate_at(config, num_steps=num_steps, num_replicas=num_replicas),
        global_clipnorm=config.clip_norm,
        **use_ema,
    )


def learning_rate_factor(config: OptimizerSettings, num_replicas: int) -> float:
    """Return the number by which `--scale-learning-rate` multiplies the learning rate; 1 for one replica."""
    factors = {"none": 1.0, "linear": float(num_replicas), "sqrt": math.sqrt(num_replicas)}
    return factors[config.scale_learning_rate]


def learning_rate_at(config: OptimizerSettings, *, num_steps: int, num_replicas: int) -> Any:
    """Return the learning rate, a number or a schedule of Keras over the optimizer's steps, from 0.

    With K warm-up steps, step s < K trains at rate * s / K. A falling schedule then takes the other steps.

    Raises:
        ConfigurationError: a falling schedule has no step left after the warm-up.
    """
    rate = (config.learning_rate or DEFAULT_LEARNING_RATE) * learning_rate_factor(config, num_replicas)
    steps = num_steps - config.warmup_steps
    if config.schedule == "constant":
        steps = max(1, steps)
    elif steps <= 0:
        raise ConfigurationError(
            f"--warmup-steps is {config.warmup_steps}, but the run has {num_steps} steps, so --schedule "
            f"{config.schedule} would never fall. Give fewer warm-up steps, or train for longer."
        )
    if config.schedule == "linear":
        return LinearDecay(rate, steps, config.warmup_steps)
    if config.schedule == "constant" and config.warmup_steps == 0:
        return rate
    warmup = {"warmup_target": rate, "warmup_steps": config.warmup_steps} if config.warmup_steps else {}
    lowest = 1.0 if config.schedule == "constant" else 0.0  # a fraction of the rate: a decay to 1.0 stays at the rate
    return keras.optimizers.schedules.CosineDecay(0.0 if warmup else rate, steps, alpha=lowest, **warmup)


@keras.saving.register_keras_serializable("distrain")
class LinearDecay(keras.optimizers.schedules.PolynomialDecay):
    """A straight line from `rate` to 0 over `decay_steps`, after `warmup_steps` of a straight line from 0.

    Keras' own linear decay has no warm-up.

    Args:
        rate: highest learning rate.
        decay_steps: steps of the decay.
        warmup_steps: steps before the decay.
    """

    def __init__(self, rate: float, decay_steps: int, warmup_steps: int = 0) -> None:
        super().__init__(rate, decay_steps, end_learning_rate=0.0)
        self._settings = {"rate": rate, "decay_steps": decay_steps, "warmup_steps": warmup_steps}

    def __call__(self, step: Any) -> Any:
        """Return the learning rate at a step, from 0."""
        warmup = self._settings["warmup_steps"]
        falling = super().__call__(keras.ops.maximum(step - warmup, 0))
        rising = keras.ops.cast(step, falling.dtype) / max(1, warmup) * self._settings["rate"]
        return keras.ops.where(step < warmup, rising, falling)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of `__init__`."""
        return dict(self._settings)
