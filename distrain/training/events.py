"""What the loop passes to its actions, and what an action may decide.

Decides: which decisions there are, and which wins. Never: trains, saves or decides.

    >>> from distrain.training.events import Decision
    >>> max(Decision.GO_ON, Decision.STOP, Decision.FINISH).name
    'STOP'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from distrain.runs.progress import Progress

Figures = Mapping[str, float]


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
