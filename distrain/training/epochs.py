"""Trains the epochs of a run: connects the loop with the run's steps, data, checkpoints and reports.

Decides: which actions follow a step and an epoch, and in which order. Never: what an action or a step does.

    trained = train_epochs(setup, steps, report, stop=stop, at_step=lambda step: None, started_at=time.time())
    trained.progress.global_step
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from distrain.cluster.signals import StopRequest
from distrain.errors import DivergenceError, StopRequested
from distrain.reporting.reporter import Reporter
from distrain.runs import directory as run_directory
from distrain.runs.progress import Progress, read_progress
from distrain.training.actions import (
    EarlyStopping,
    agree_on_decision,
    check_weights,
    every_steps,
    report_epochs,
    report_steps,
)
from distrain.training.evaluation import evaluate_validation
from distrain.training.events import Decision
from distrain.training.feed import open_epoch
from distrain.training.keras_callbacks import KerasCallbacks
from distrain.training.loop import TrainingLoop, run_epochs
from distrain.training.saving import Saver
from distrain.training.setup import CompiledSteps, RunSetup
from distrain.training.step_flags import StepFlags
from distrain.training.throughput import StartupTime, Throughput


@dataclass(frozen=True)
class TrainedEpochs:
    """A run whose training is complete.

    Attributes:
        progress: how far training came.
        best_step: global step of the best epoch; None if no epoch was trained.
        best_metrics: metrics of the best epoch.
        history: metrics of each epoch that this process trained.
        samples_per_second: over all replicas; None if this process trained less than two calls of the step.
        startup_seconds: from the start of the command to the end of the first step; None without a step.
        was_complete: whether training was complete before this process started.
    """

    progress: Progress
    best_step: int | None
    best_metrics: dict[str, float]
    history: list[dict[str, float]]
    samples_per_second: float | None
    startup_seconds: float | None
    was_complete: bool


def train_epochs(
    setup: RunSetup,
    steps: CompiledSteps,
    report: Reporter,
    *,
    stop: StopRequest,
    at_step: Callable[[int], None],
    started_at: float,
) -> TrainedEpochs:
    """Train until all epochs are trained, or an action finishes training.

    Args:
        setup: the run.
        steps: its compiled steps.
        report: receives each event.
        stop: whether this process received a request to stop.
        at_step: receives the global step after each call of the step.
        started_at: when the command started, in seconds since 1970.

    Raises:
        StopRequested: a rank received a request to stop; everything is saved.
        DivergenceError: the loss is not finite.
    """
    config = setup.config
    progress = read_progress(setup.restored)
    state = setup.restored.state if setup.restored else {}
    early_stopping = EarlyStopping(config.patience, state.get("early_stopping"))
    parts = _Parts(
        report,
        StepFlags(setup.distribution.group, stop, global_step=progress.global_step),
        early_stopping,
        KerasCallbacks(
            list(setup.job.callbacks),
            model=setup.trainable.model,
            num_epochs=config.epochs,
            num_steps=setup.epoch_plan().num_steps,
        ),
        Saver(setup, early_stopping, report),
        Throughput(),
        StartupTime(report, started_at=started_at),
        history=[],
    )
    was_complete = setup.restored is not None and run_directory.is_finished(config, setup.restored)
    if was_complete:
        report.note(f"{config.run} is finished already. Ask for more --epochs, or train into another --run.")
    else:
        _report_start(report, setup, progress)
        at_step(progress.global_step)
        progress = _run(_training_loop(setup, steps, parts, at_step), parts, progress)
    return TrainedEpochs(
        progress,
        early_stopping.best_step,
        early_stopping.best_metrics,
        parts.history,
        parts.throughput.samples_per_second(),
        parts.startup.seconds,
        was_complete,
    )


@dataclass(frozen=True)
class _Parts:
    """The objects whose methods are a run's actions."""

    report: Reporter
    step_flags: StepFlags
    early_stopping: EarlyStopping
    callbacks: KerasCallbacks
    saver: Saver
    throughput: Throughput
    startup: StartupTime
    history: list[dict[str, float]]


def _training_loop(
    setup: RunSetup, steps: CompiledSteps, parts: _Parts, at_step: Callable[[int], None]
) -> TrainingLoop:
    config, step_flags, callbacks, report = setup.config, parts.step_flags, parts.callbacks, parts.report
    save_steps = [every_steps(config.checkpoint_every, parts.saver.after_step)] if config.checkpoint_every else []
    train_steps = step_flags.around_steps(steps.train, microbatches_per_process=len(setup.local_microbatches))
    evaluate = partial(evaluate_validation, setup, steps.evaluate, step_flags, report)
    return TrainingLoop(
        num_epochs=config.epochs,
        open_epoch=partial(open_epoch, setup, step_flags),
        before_epoch=callbacks.before_epoch,
        train_steps=callbacks.around_steps(train_steps),
        evaluate=callbacks.around_evaluation(evaluate),
        metrics_of=setup.metrics_of,
        after_step=[
            lambda event: at_step(event.progress.global_step),
            parts.throughput,
            parts.startup,
            report_steps(report),
            callbacks.after_step,
            *save_steps,
            step_flags.action,
        ],
        after_epoch=[
            parts.early_stopping,
            callbacks.after_epoch,
            agree_on_decision(setup.distribution.group),
            check_weights(setup.distribution.group, setup.model_state, setup.synchronize),
            report_epochs(report, parts.history),
            parts.saver.after_epoch,
            step_flags.action,
        ],
        steps_per_execution=config.steps_per_execution,
        where_diverged=step_flags.where_diverged,
    )


def _run(loop: TrainingLoop, parts: _Parts, progress: Progress) -> Progress:
    """Run the loop, and report how it ended."""
    parts.callbacks.before_training()
    try:
        progress, decision = run_epochs(loop, progress)
    except DivergenceError as error:
        error.reporting_rank = 0  # every rank computed the same sums
        raise
    if decision is Decision.STOP:
        parts.saver.save(progress, epoch=progress.epoch)
        raise _stopped(parts.report, progress, parts.step_flags.stopped_by())
    parts.callbacks.after_training(parts.history[-1] if parts.history else {})
    reason = "all epochs are trained"
    if decision is Decision.FINISH:
        is_exhausted = parts.early_stopping.is_exhausted()
        reason = "the validation loss stopped falling" if is_exhausted else "a callback asked to"
    parts.report.stop(epoch=progress.epoch, step=progress.global_step, reason=reason)
    return progress


def _report_start(report: Reporter, setup: RunSetup, progress: Progress) -> None:
    config, distribution = setup.config, setup.distribution
    sizes = f"{distribution.num_replicas} x {setup.batch_size}"
    if config.accumulation_steps > 1:
        sizes += f" x {config.accumulation_steps}"
    report.note(
        f"{setup.job.train.num_examples:,} examples, {sizes} per step ({distribution.name}), "
        f"{setup.epoch_plan().num_steps:,} steps per epoch, at most {config.epochs} epochs, into {config.run}"
    )
    if setup.restored is not None:
        report.resume(epoch=progress.epoch + 1, step=progress.global_step, path=setup.restored.path)


def _stopped(report: Reporter, progress: Progress, stopped_by: str) -> StopRequested:
    report.stop(epoch=progress.epoch + 1, step=progress.global_step, reason=f"{stopped_by} received")
    stopped = StopRequested(
        f"Stopped by {stopped_by} at step {progress.global_step}, with everything saved. "
        "Run the same command again to go on."
    )
    stopped.reporting_rank = 0
    return stopped
