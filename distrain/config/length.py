"""Settings of the length of a run: its epochs, its limits, and the figure that chooses the best epoch.

Decides: when training may end, and by which figure. Never: watches a clock or a figure.

    >>> LengthSettings(max_steps=1000).patience
    2
"""

from __future__ import annotations

from dataclasses import dataclass

from distrain.config.setting import Duration, setting

MODES = ("auto", "min", "max")


@dataclass(frozen=True)
class LengthSettings:
    """Settings of the length of a run."""

    epochs: int = setting("largest number of epochs", default=100, at_least=1, may_change=True)
    max_steps: int | None = setting(
        "end the run after this number of optimizer steps, those before a resume included",
        default=None,
        at_least=1,
        metavar="STEPS",
        may_change=True,
    )
    max_time: Duration | None = setting(
        "end the run after this time of training and validation, the time before a resume included",
        default=None,
        pattern=Duration.PATTERN,
        rule=Duration.RULE,
        metavar="SECONDS|1h30m",
        may_change=True,
    )
    limit_batches: int | None = setting(
        "dry run: train and validate on this number of global batches an epoch, and say so in the summary",
        default=None,
        at_least=1,
        metavar="K",
    )
    validate_every: int | None = setting(
        "also validate every this number of steps; the figures are logged and decide nothing",
        default=None,
        at_least=1,
        metavar="STEPS",
        may_change=True,
    )
    skip_nonfinite: int = setting(
        "most steps of a run to leave out because their loss or gradient is not finite; one more ends the run",
        default=0,
        at_least=0,
        metavar="M",
        may_change=True,
    )
    patience: int = setting(
        "epochs without a better --monitor before training stops; 0 trains all epochs",
        default=2,
        at_least=0,
        metavar="EPOCHS",
        may_change=True,
    )
    monitor: str | None = setting(
        "figure that chooses the best epoch and stops training, such as val_accuracy",
        default=None,
        default_text="val_loss, or loss without validation data",
        pattern=r".+",
        rule="the name of a figure, such as val_accuracy",
        metavar="METRIC",
    )
    mode: str = setting(
        "whether a lower (min) or a higher (max) --monitor is better; auto decides as callbacks of Keras do",
        default="auto",
        choices=MODES,
    )
