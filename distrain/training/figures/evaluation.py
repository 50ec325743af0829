"""Metrics over all batches of an evaluation.

Decides: how the sums of steps become metrics, and when an evaluation stops early. Never: makes batches or saves.

    metrics = evaluate_all(batches, evaluate_step, metrics_of)          # {"loss": 0.31, "accuracy": 0.9}
    metrics = evaluate_validation(setup, evaluate_step, step_flags, report)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from distrain.batch import Batch
from distrain.reporting.reporter import Reporter
from distrain.runs.progress import Sums
from distrain.training.feed import open_evaluation
from distrain.training.loop.events import Action, Decision, StepEvent
from distrain.training.loop.step_flags import StepFlags
from distrain.training.run_setup import RunSetup

if TYPE_CHECKING:
    from distrain.training.steps.step import Step


def evaluate_validation(
    setup: RunSetup,
    evaluate_step: Step | None,
    step_flags: StepFlags,
    report: Reporter,
    around_step: Callable[..., Callable[[list[Batch]], Sums]] = lambda evaluate_step, metrics_of: evaluate_step,
) -> dict[str, Any] | None:
    """Return metrics of the validation data: empty without such data, None if a request to stop interrupted.

    Args:
        setup: the run.
        evaluate_step: the compiled evaluation step; None without validation data.
        step_flags: requests to stop and failures of all ranks.
        report: receives the number of each finished step.
        around_step: (evaluation step, `metrics_of`) -> the step to call in this evaluation.
    """
    setup.synchronize()
    if evaluate_step is None or setup.job.validation is None:
        return {}
    plan, batches = open_evaluation(setup, step_flags, setup.job.validation)
    flagged_step = step_flags.around(evaluate_step)
    return evaluate_all(
        batches,
        around_step(flagged_step, setup.metrics_of),
        setup.metrics_of,
        after_step=lambda step: report.evaluating(step=step, num_steps=plan.num_steps),
        interrupted=step_flags.stop_is_agreed,
    )


def validate_within_epoch(evaluate: Callable[[], dict[str, Any] | None], report: Reporter) -> Action:
    """Return an action that reports figures of the validation data, and decides nothing.

    Args:
        evaluate: returns the metrics, or None if a request to stop interrupted; see `evaluate_validation`.
        report: receives the metrics.
    """

    def action(event: StepEvent) -> None:
        if event.decision is Decision.FINISH:  # the loop evaluates next
            return
        started = time.perf_counter()
        evaluated = {f"val_{name}": value for name, value in (evaluate() or {}).items()}
        if evaluated:
            position = {"epoch": event.epoch + 1, "step": event.progress.global_step}
            report.evaluate(**position, seconds=time.perf_counter() - started, logs=evaluated)

    return action


def evaluate_all(
    batches: AbstractContextManager[Iterator[list[Any]]],
    evaluate_step: Callable[[list[Batch]], Sums],
    metrics_of: Callable[[Sums], dict[str, Any]],
    *,
    after_step: Callable[[int], None] = lambda step: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """Return metrics over all batches, every example counted once.

    Args:
        batches: context of an iterator over the batches of each step.
        evaluate_step: the batches of a step -> their sums.
        metrics_of: sums -> loss and metrics.
        after_step: receives the number of each finished step, from 1.
        interrupted: returns whether to stop after a step; then the result is None.
    """
    total: list[Any] = []
    with batches as steps:
        for number, step_batches in enumerate(steps, start=1):
            sums = [np.float64(value) for value in evaluate_step(step_batches)]
            total = [a + b for a, b in zip(total, sums, strict=True)] if total else sums
            after_step(number)
            if interrupted():
                return None
    return metrics_of(total)
