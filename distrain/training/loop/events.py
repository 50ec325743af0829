"""What the loop passes to its actions, and what an action may decide.

Decides: which decisions there are, and which decision wins. Never: trains, saves or decides.

    >>> from distrain.training.loop.events import Decision
    >>> max(Decision.GO_ON, Decision.STOP, Decision.FINISH).name
    'STOP'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from distrain.runs.progress import Progress

Metrics = Mapping[str, float]


class Decision(IntEnum):
    """What an action asks the loop to do; the largest decision wins."""

    GO_ON = 0
    FINISH = 1  # training is complete before its last epoch, or before the last step of an epoch
    STOP = 2  # end this process; a later process resumes here


@dataclass(frozen=True)
class NotFinite:
    """A step that changed no weight, because a number in it is not finite.

    Attributes:
        what: which number, as in "The loss is nan".
        devices: numbers of the devices whose share of the step is not finite, over all processes; empty if each share
            is finite but not their sum.
    """

    what: str
    devices: tuple[int, ...]


@dataclass(frozen=True)
class StepEvent:
    """What an action sees after a call of the step, or after an epoch.

    Attributes:
        epoch: epoch of these steps, from 0.
        progress: where a resumed run would start.
        step: steps of the epoch so far, those before a resume included.
        num_steps: steps of the whole epoch.
        new_steps: steps since the previous event; at the end of an epoch all its steps that this process trained.
        num_examples: examples of the new steps, over all replicas.
        seconds: duration of the new steps.
        metrics: returns loss and metrics of the epoch so far; at its end also the validation metrics, `val_...`.
        decision: largest decision of the actions that the loop called before.
        evaluation_seconds: duration of the epoch's evaluation; 0 after a step.
    """

    epoch: int
    progress: Progress
    step: int
    num_steps: int
    new_steps: int
    num_examples: int
    seconds: float
    metrics: Callable[[], Metrics]
    decision: Decision
    evaluation_seconds: float = 0.0


Action = Callable[[StepEvent], Decision | None]
