"""Actions of a run: reports, and checks that the ranks agree.

Decides: which figures a report gets after a step and an epoch. Never: touches the plan or the weights.

    TrainingLoop(..., after_step=[report_steps(report, learning_rate)], after_epoch=[early_stopping, ...])

Each action is a callable, StepEvent -> Decision or None; the loop decides when to call it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from distrain.cluster.agreement import max_over_ranks
from distrain.reporting.metrics_log import LEARNING_RATE
from distrain.reporting.reporter import Reporter
from distrain.training.loop.early_stopping import EarlyStopping
from distrain.training.loop.events import Action, Decision, StepEvent

if TYPE_CHECKING:
    from distrain.cluster.process_group import ProcessGroup


def report_steps(report: Reporter, learning_rate: Callable[[], float]) -> Action:
    """Return an action that reports each step, with the learning rate of the next step."""

    def action(event: StepEvent) -> None:
        report.step(
            epoch=event.epoch + 1,
            step=event.progress.global_step,
            steps_per_epoch=event.num_steps,
            num_examples=event.num_examples,
            logs=lambda: {**event.metrics(), LEARNING_RATE: learning_rate()},
        )

    return action


def report_epochs(
    report: Reporter,
    history: list[dict[str, float]],
    early_stopping: EarlyStopping,
    learning_rate: Callable[[], float],
) -> Action:
    """Return an action that reports each epoch with its evaluation, and appends the metrics to `history`.

    Args:
        report: receives the epochs.
        history: metrics of each epoch.
        early_stopping: has judged the epoch before.
        learning_rate: returns the learning rate of the next step.
    """

    def action(event: StepEvent) -> None:
        metrics = dict(event.metrics())
        history.append(metrics)
        position = {"epoch": event.epoch + 1, "step": event.progress.global_step}
        evaluated = {name: value for name, value in metrics.items() if name.startswith("val_")}
        if evaluated:
            report.evaluate(**position, seconds=event.evaluation_seconds, logs=evaluated)
        report.epoch(
            **position,
            num_examples=event.num_examples,
            seconds=event.seconds,
            logs={**metrics, LEARNING_RATE: learning_rate()},
            best=early_stopping.best_step == event.progress.global_step,
        )

    return action


def every_steps(steps: int, action: Action) -> Action:
    """Return an action that calls `action` every `steps` global steps, but not at the end of an epoch.

    At the end of an epoch the loop calls the actions of `after_epoch`. If a call of the step trains several steps,
    `action` follows the call that contains the due step.
    """

    def due_action(event: StepEvent) -> Decision | None:
        is_due = event.progress.global_step % steps < event.new_steps and event.step < event.num_steps
        return action(event) if is_due else None

    return due_action


def agree_on_decision(group: ProcessGroup) -> Action:
    """Return an action that takes the largest decision of all ranks: a callback may see its own process only."""
    return lambda event: Decision(max_over_ranks(group, event.decision))
