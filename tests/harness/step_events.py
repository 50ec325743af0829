"""A `StepEvent` with defaults, for tests of actions.

event = step_event(3, num_steps=10, loss=0.5)
"""

from __future__ import annotations

from distrain.runs.progress import Progress
from distrain.training.loop.events import Decision, StepEvent


def step_event(
    step: int = 1,
    num_steps: int = 10,
    *,
    epoch: int = 0,
    seconds: float = 1.0,
    examples: int = 8,
    new: int = 1,
    decision: Decision = Decision.GO_ON,
    **metrics: float,
) -> StepEvent:
    """Return the event of a step of an epoch, whose number is also the global step."""
    return StepEvent(
        epoch=epoch,
        progress=Progress(epoch=epoch, global_step=step),
        step=step,
        num_steps=num_steps,
        new_steps=new,
        num_examples=examples,
        seconds=seconds,
        metrics=lambda: metrics,
        decision=decision,
    )
