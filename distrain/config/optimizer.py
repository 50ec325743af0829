"""Settings of the optimizer that distrain makes: Adam, with a learning rate over the steps of the run.

Decides: which optimizers may be asked for. Never: makes an optimizer, imports TensorFlow.

    >>> OptimizerSettings(learning_rate=0.002, schedule="cosine", warmup_steps=100).clip_norm is None
    True
"""

from __future__ import annotations

from dataclasses import dataclass

from distrain.config.setting import setting

DEFAULT_LEARNING_RATE = 1e-3
SCHEDULES = ("constant", "cosine", "linear")
SCALINGS = ("none", "linear", "sqrt")


@dataclass(frozen=True)
class OptimizerSettings:
    """Settings of the optimizer; they describe the optimizer that distrain makes, never one that a user brings."""

    learning_rate: float | None = setting(
        "learning rate of the Adam optimizer; with a schedule, its highest value",
        default=None,
        default_text=str(DEFAULT_LEARNING_RATE),
        above=0,
        below=float("inf"),
        metavar="RATE",
    )
    warmup_steps: int = setting(
        "optimizer steps in which the learning rate rises from 0 in a straight line",
        default=0,
        at_least=0,
        metavar="STEPS",
    )
    schedule: str = setting(
        "course of the learning rate after the warm-up; cosine and linear fall to 0 at the last step of the run",
        default="constant",
        choices=SCHEDULES,
    )
    scale_learning_rate: str = setting(
        "multiply the learning rate by the number of replicas N (linear), or by its square root (sqrt)",
        default="none",
        choices=SCALINGS,
    )
    clip_norm: float | None = setting(
        "largest norm of the gradient of all weights together; a longer gradient is shortened to this norm",
        default=None,
        above=0,
        below=float("inf"),
        metavar="NORM",
    )
    ema: float | None = setting(
        "momentum of a moving average of the weights, such as 0.99; the trained model holds the averages",
        default=None,
        above=0,
        below=1,
        metavar="MOMENTUM",
    )
