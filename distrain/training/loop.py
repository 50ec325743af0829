"""The outer loop: epochs of steps, and what is asked in between.

Who owns what: the loop owns `Progress`, and replaces it after each step. The plan owns which batches a step gets. The
step owns the weights. Actions see a `StepEvent`; they save, show and decide, and never change progress.

Decides: when a step runs, when an epoch is over, whose decision counts. Never: what a step computes, what is saved.

    progress, decision = run_epochs(Progress(), num_epochs=10, open_epoch=..., train_steps=..., evaluate=...,
                                    figures=..., after_step=[save_every_100], after_epoch=[stop_early, save])
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from distrain.batch import Batch
from distrain.errors import DivergenceError
from distrain.runs.progress import Progress, Sums
from distrain.training.events import Action, Decision, Figures, StepEvent


@dataclass(frozen=True)
class EpochSteps:
    """The steps of one epoch, or of what is left of it.

    Attributes:
        num_steps: how many.
        num_examples: step -> examples over all replicas.
        batches: context whose value yields, per step, one batch per local replica.
    """

    num_steps: int
    num_examples: Callable[[int], int]
    batches: AbstractContextManager[Iterator[list[Batch]]]


def run_epochs(
    progress: Progress,
    *,
    num_epochs: int,
    open_epoch: Callable[[Progress], EpochSteps],
    train_steps: Callable[[list[list[Batch]]], list[Sums]],
    evaluate: Callable[[], Figures | None],
    figures: Callable[[Sums], dict[str, float]],
    after_step: Sequence[Action],
    after_epoch: Sequence[Action],
    before_epoch: Callable[[int], None] = lambda epoch: None,
    steps_per_execution: int = 1,
    where_diverged: Callable[[], str] = lambda: "",
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Progress, Decision]:
    """Train from `progress` on, until the last epoch is over or an action decides otherwise.

    Args:
        progress: where to go on.
        num_epochs: epochs in all.
        open_epoch: progress -> the steps left in its epoch. Called before the epoch before it is evaluated, so that its
            first batches are there in time.
        train_steps: for each of some steps one batch per local replica -> the sums of each; the first is the weighted
            loss, the second the weight.
        evaluate: figures on the validation data; None when it was interrupted by a request to stop.
        figures: sums -> loss and metrics.
        after_step: asked after each call of `train_steps`, in order.
        after_epoch: asked after each epoch's evaluation, in order.
        before_epoch: told the number of each epoch, from 0, before its first step.
        steps_per_execution: steps that `train_steps` is given at a time; fewer at the end of an epoch.
        where_diverged: where a loss was not finite, as in " on rank 1".
        clock: seconds.

    Returns:
        Progress to save, and the decision that ended training (`GO_ON`: all epochs are over).

    Raises:
        DivergenceError: the loss of a step or of the validation data is not finite. Nothing was saved after it.
    """
    with ExitStack() as opened:

        def open_(progress: Progress) -> tuple[EpochSteps, Iterator[list[Batch]]]:
            steps = open_epoch(progress)
            return steps, opened.enter_context(steps.batches)

        following = open_(progress) if progress.epoch < num_epochs else None
        while following is not None:
            epoch, began_seconds = progress.epoch, progress.train_seconds
            steps, batches = following
            before_epoch(epoch)
            before, done = clock(), 0
            while group := list(islice(batches, min(steps_per_execution, steps.num_steps - done))):
                sums_of_steps = train_steps(group)
                now = clock()
                num_examples = [steps.num_examples(done + place) for place in range(len(group))]
                for sums, of_step in zip(sums_of_steps, num_examples, strict=False):  # the last ones may be missing
                    if not math.isfinite(sums[0]):
                        raise DivergenceError(
                            f"The loss is {float(sums[0])} at step {progress.global_step + 1} (epoch {epoch + 1})"
                            f"{where_diverged()}. Lower "
                            "--learning-rate, or look for values in the data that are not finite."
                        )
                    progress = progress.after_step(sums, of_step, (now - before) / len(group))
                done += len(group)
                event = StepEvent(
                    epoch=epoch,
                    progress=progress,
                    step=done,
                    num_steps=steps.num_steps,
                    new_steps=len(group),
                    num_examples=sum(num_examples),
                    seconds=now - before,
                    figures=partial(figures, progress.sums),
                    decision=Decision.GO_ON,
                )
                decision = _ask(after_step, event)
                if decision is not Decision.GO_ON:
                    return progress, decision
                before = clock()
            opened.close()
            # Its first batches are made during the evaluation.
            following = open_(progress.after_epoch()) if epoch + 1 < num_epochs else None
            trained = figures(progress.sums)
            before = clock()
            evaluated = evaluate()
            if evaluated is None:
                return progress, Decision.STOP
            if not math.isfinite(evaluated.get("loss", 0.0)):
                raise DivergenceError(
                    f"The validation loss is {evaluated['loss']} after step {progress.global_step} (epoch {epoch + 1})"
                    f"{where_diverged()}. Lower --learning-rate, or look for values in the data that are not finite."
                )
            judged = {**trained, **{f"val_{name}": value for name, value in evaluated.items()}}
            event = StepEvent(
                epoch=epoch,
                progress=progress.after_epoch(),
                step=steps.num_steps,
                num_steps=steps.num_steps,
                new_steps=steps.num_steps,
                num_examples=sum(map(steps.num_examples, range(steps.num_steps))),
                seconds=progress.train_seconds - began_seconds,
                evaluation_seconds=clock() - before,
                figures=partial(dict, judged),
                decision=Decision.GO_ON,
            )
            progress = event.progress
            decision = _ask(after_epoch, event)
            if decision is not Decision.GO_ON:
                return progress, decision
    return progress, Decision.GO_ON


def _ask(actions: Sequence[Action], event: StepEvent) -> Decision:
    decision = event.decision
    for action in actions:
        decision = max(decision, action(replace(event, decision=decision)) or Decision.GO_ON)
    return decision


def evaluate_all(
    batches: AbstractContextManager[Iterator[list[Any]]],
    evaluate_step: Callable[[list[Batch]], Sums],
    figures: Callable[[Sums], dict[str, float]],
    *,
    after_step: Callable[[int], None] = lambda step: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Figures over all batches, every example counted once; None if `interrupted` between two steps.

    `after_step` is told the number of each step, from 1.
    """
    total: list[Any] = []
    with batches as steps:
        for number, step_batches in enumerate(steps, start=1):
            sums = [np.float64(value) for value in evaluate_step(step_batches)]
            total = [a + b for a, b in zip(total, sums, strict=True)] if total else sums
            after_step(number)
            if interrupted():
                return None
    return figures(total)
