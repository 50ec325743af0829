"""Where training stands, and what may be decided there.

Decides: what a checkpoint must hold to go on, and which decisions there are. Never: trains, saves or decides.

    >>> from distrain.training.events import Progress
    >>> Progress().after_step([2.5, 64.0], num_examples=64, seconds=0.1).position
    64
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

Sums = Sequence[np.ndarray]
Figures = Mapping[str, float]


@dataclass(frozen=True)
class Progress:
    """How far training has come; a checkpoint holds this.

    Attributes:
        epoch: the epoch under way, from 0.
        position: examples of it that were trained: where the next batch starts.
        global_step: updates so far.
        examples_trained: examples so far, over all epochs.
        train_seconds: time spent in training steps so far.
        sums: the step's sums, added up over the epoch under way (float64).
    """

    epoch: int = 0
    position: int = 0
    global_step: int = 0
    examples_trained: int = 0
    train_seconds: float = 0.0
    sums: tuple[np.ndarray, ...] = ()

    def after_step(self, sums: Sums, num_examples: int, seconds: float) -> Progress:
        """Progress once a step over `num_examples` examples is done."""
        added = [np.asarray(value, np.float64) for value in sums]
        if self.sums:
            added = [before + value for before, value in zip(self.sums, added, strict=True)]
        return Progress(
            self.epoch,
            self.position + num_examples,
            self.global_step + 1,
            self.examples_trained + num_examples,
            self.train_seconds + seconds,
            tuple(added),
        )

    def after_epoch(self) -> Progress:
        """Progress once the epoch is over, its evaluation included."""
        return replace(self, epoch=self.epoch + 1, position=0, sums=())


class Decision(IntEnum):
    """What an action asks for; the largest counts."""

    GO_ON = 0
    FINISH = 1  # training is complete before its last epoch
    STOP = 2  # stop here, so that it can go on later


@dataclass(frozen=True)
class StepEvent:
    """What an action sees.

    Attributes:
        epoch: the epoch that the step belongs to, or that is over; from 0.
        progress: where training would go on from here.
        step: steps of this epoch so far, counted from where this process took it up.
        num_steps: of how many.
        new_steps: steps since the moment before; all of them, where the epoch is over.
        num_examples: examples of these steps.
        seconds: that these steps took.
        evaluation_seconds: that the evaluation of the epoch took, where the epoch is over.
        figures: gives loss and metrics of the epoch so far; at its end with `val_...`.
        decision: what was decided before this action was asked.
    """

    epoch: int
    progress: Progress
    step: int
    num_steps: int
    new_steps: int
    num_examples: int
    seconds: float
    figures: Callable[[], Figures]
    decision: Decision
    evaluation_seconds: float = 0.0


Action = Callable[[StepEvent], Decision | None]
