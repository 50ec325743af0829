"""The outer loop: epochs of steps, with actions after each call of the step and after each epoch.

The loop owns `Progress` and replaces it after each step. The plan owns which batches a step gets. The step owns the
weights. Actions see a `StepEvent`: they save, report and decide, but never change progress.

Decides: when a step runs, when an epoch ends, whose decision wins. Never: what a step computes or a checkpoint holds.

    loop = TrainingLoop(num_epochs=10, open_epoch=..., train_steps=..., evaluate=..., metrics_of=...,
                        after_step=[save_every_100], after_epoch=[stop_early, save])
    progress, decision = run_epochs(loop, Progress())
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import NamedTuple, NoReturn

from distrain.batch import Batch
from distrain.errors import DivergenceError
from distrain.runs.progress import Progress, Sums
from distrain.training.loop.events import Action, Decision, Metrics, NotFinite, StepEvent

CURE = "Lower --learning-rate, or look for values in the data that are not finite."


@dataclass(frozen=True)
class EpochSteps:
    """The steps of one epoch, or its remaining steps after a resume.

    Attributes:
        num_steps: number of steps.
        num_examples: step -> examples over all replicas.
        batches: context of an iterator that yields, per step, one batch per local microbatch.
    """

    num_steps: int
    num_examples: Callable[[int], int]
    batches: AbstractContextManager[Iterator[list[Batch]]]


@dataclass(frozen=True)
class TrainingLoop:
    """The functions that the loop calls.

    Attributes:
        num_epochs: epochs in all, those before a resume included.
        open_epoch: progress -> the remaining steps of its epoch. The loop opens an epoch before it evaluates the
            previous epoch, so that the first batches are made during the evaluation.
        train_steps: trains some steps, each given as its batches; yields the sums of each step. The first sum is the
            weighted loss, the second the weight. A `NotFinite` in place of sums says why a step changed no weight.
            Reading the sums may wait for the device.
        evaluate: returns metrics of the validation data, or None if a request to stop interrupted the evaluation.
        metrics_of: sums -> loss and metrics.
        after_step: actions after each call of `train_steps`, in order. After `FINISH` the loop evaluates at once, and
            the actions of `after_epoch` see a `progress` within the epoch.
        after_epoch: actions after each epoch's evaluation, in order.
        before_epoch: receives the number of each epoch, from 0, before its first step. Returns `FINISH` if a resumed
            epoch has ended already, so that its evaluation follows.
        steps_per_execution: steps per call of `train_steps`; the last call of an epoch may have fewer.
        max_steps: no call of `train_steps` goes beyond this global step, at which an action must finish the run.
        skip: receives each step that is not finite, with the progress before; raises `DivergenceError` unless training
            may go on without this step.
        runs_ahead: whether the next call may begin before the loop reads the sums of a call, given the global step
            before and after that call. Its actions then see variables that one more call has changed.
        where_diverged: returns where the validation loss was not finite, as in " on rank 1".
        clock: returns seconds.
    """

    num_epochs: int
    open_epoch: Callable[[Progress], EpochSteps]
    train_steps: Callable[[list[list[Batch]]], Iterable[Sums | NotFinite]]
    evaluate: Callable[[], Metrics | None]
    metrics_of: Callable[[Sums], Metrics]
    after_step: Sequence[Action] = ()
    after_epoch: Sequence[Action] = ()
    before_epoch: Callable[[int], Decision | None] = lambda epoch: None
    steps_per_execution: int = 1
    max_steps: int | None = None
    skip: Callable[[NotFinite, Progress], None] = lambda bad, progress: refuse_step(bad, progress)
    runs_ahead: Callable[[int, int], bool] = lambda before, after: False
    where_diverged: Callable[[], str] = lambda: ""
    clock: Callable[[], float] = time.perf_counter


def run_epochs(loop: TrainingLoop, progress: Progress) -> tuple[Progress, Decision]:
    """Train from `progress` until the last epoch ends or an action decides otherwise.

    Returns:
        The progress to save, and the decision that ended training; `GO_ON` means that all epochs are trained.

    Raises:
        DivergenceError: a step that may not be skipped, or the loss of the validation data, is not finite. No action
            has seen that step or loss.
    """
    with ExitStack() as opened:

        def open_epoch(progress: Progress) -> tuple[EpochSteps, Iterator[list[Batch]]]:
            steps = loop.open_epoch(progress)
            return steps, opened.enter_context(steps.batches)

        following = open_epoch(progress) if progress.epoch < loop.num_epochs else None
        while following is not None:
            steps, batches = following
            before = progress
            decision = loop.before_epoch(progress.epoch) or Decision.GO_ON
            if decision is Decision.GO_ON:
                progress, decision = _train_epoch(loop, progress, steps, batches)
            if decision is Decision.STOP:
                return progress, decision
            opened.close()
            is_last = decision is Decision.FINISH or progress.epoch + 1 == loop.num_epochs
            following = None if is_last else open_epoch(progress.after_epoch())
            event = _evaluate_epoch(loop, before, progress, steps, decision)
            if event is None:
                return progress, Decision.STOP
            progress = event.progress
            decision = _decide(loop.after_epoch, event)
            if decision is not Decision.GO_ON:
                return progress, decision
    return progress, Decision.GO_ON


class _Call(NamedTuple):
    """A call of `train_steps` that has begun.

    Attributes:
        first: number of its first step among the steps of the epoch.
        num_steps: number of its steps.
        sums: see `TrainingLoop.train_steps`.
    """

    first: int
    num_steps: int
    sums: Iterable[Sums | NotFinite]


def _train_epoch(
    loop: TrainingLoop, progress: Progress, steps: EpochSteps, batches: Iterator[list[Batch]]
) -> tuple[Progress, Decision]:
    """Train the steps of an epoch, or until an action decides otherwise."""
    num_steps = progress.epoch_steps + steps.num_steps
    calls, ahead = _calls(loop, progress, steps, batches), None
    decision, before = Decision.GO_ON, loop.clock()
    while call := ahead or (next(calls, None) if decision is Decision.GO_ON else None):
        after = progress.global_step + call.num_steps
        may_begin = decision is Decision.GO_ON and loop.runs_ahead(progress.global_step, after)
        ahead = next(calls, None) if may_begin else None
        num_examples = [steps.num_examples(call.first + index) for index in range(call.num_steps)]
        sums_of_steps = list(call.sums)
        now = loop.clock()
        for sums, examples in zip(sums_of_steps, num_examples, strict=False):  # steps after a failed step have no sums
            seconds = (now - before) / call.num_steps
            if isinstance(sums, NotFinite):
                loop.skip(sums, progress)
                progress = progress.after_skipped_step(examples, seconds)
            else:
                progress = progress.after_step(sums, examples, seconds)
        event = StepEvent(
            epoch=progress.epoch,
            progress=progress,
            step=progress.epoch_steps,
            num_steps=num_steps,
            new_steps=call.num_steps,
            num_examples=sum(num_examples),
            seconds=now - before,
            metrics=partial(loop.metrics_of, progress.sums),
            decision=Decision.GO_ON,
        )
        decision = max(decision, _decide(loop.after_step, event))
        before = loop.clock()
    return progress, decision


def _calls(
    loop: TrainingLoop, progress: Progress, steps: EpochSteps, batches: Iterator[list[Batch]]
) -> Iterator[_Call]:
    """Begin the calls of an epoch, one each time that the caller asks for one."""
    done = 0
    # The plan bounds the steps, because a process whose loader failed yields batches without end.
    while group := list(islice(batches, _steps_of_call(loop, progress.global_step + done, steps.num_steps - done))):
        yield _Call(done, len(group), loop.train_steps(group))
        done += len(group)


def _steps_of_call(loop: TrainingLoop, global_step: int, remaining: int) -> int:
    before_end = remaining if loop.max_steps is None else loop.max_steps - global_step
    return min(loop.steps_per_execution, remaining, before_end)


def _evaluate_epoch(
    loop: TrainingLoop, before: Progress, progress: Progress, steps: EpochSteps, decision: Decision
) -> StepEvent | None:
    """Evaluate an epoch trained from `before` to `progress`, and return its event.

    Return None if a request to stop interrupted the evaluation.
    """
    trained = loop.metrics_of(progress.sums)
    new_steps, num_steps = progress.epoch_steps - before.epoch_steps, before.epoch_steps + steps.num_steps
    started = loop.clock()
    evaluated = loop.evaluate()
    if evaluated is None:
        return None
    if not math.isfinite(loss := evaluated.get("loss", 0.0)):
        finding = f"The validation loss is {loss} after step {progress.global_step} (epoch {progress.epoch + 1})"
        raise DivergenceError(f"{finding}{loop.where_diverged()}. {CURE}")
    metrics = {**trained, **{f"val_{name}": value for name, value in evaluated.items()}}
    return StepEvent(
        epoch=progress.epoch,
        progress=progress.after_epoch() if progress.epoch_steps == num_steps else replace(progress),  # not saved yet
        step=progress.epoch_steps,
        num_steps=num_steps,
        new_steps=new_steps,
        num_examples=progress.examples_trained - before.examples_trained,
        seconds=progress.train_seconds - before.train_seconds,
        evaluation_seconds=loop.clock() - started,
        metrics=partial(dict, metrics),
        decision=decision,
    )


def refuse_step(bad: NotFinite, progress: Progress, *, where: str = "", cure: str = CURE) -> NoReturn:
    """Raise `DivergenceError` for the step after `progress`."""
    raise DivergenceError(f"{bad.what} at step {progress.global_step + 1} (epoch {progress.epoch + 1}){where}. {cure}")


def _decide(actions: Sequence[Action], event: StepEvent) -> Decision:
    decision = event.decision
    for action in actions:
        decision = max(decision, action(replace(event, decision=decision)) or Decision.GO_ON)
    return decision
