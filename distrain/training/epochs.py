"""Trains the epochs of a run: connects the loop with the run's steps, data, checkpoints and reports.

Decides: which actions follow a step and an epoch, and in which order. Never: what an action or a step does.

    actions = make_actions(setup, report, stop=stop, started_at=boot_clock())
    progress = train_epochs(setup, steps, actions, at_step=failure_detector.at_step)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from distrain.cluster.agreement import max_over_ranks
from distrain.cluster.error_relay import run_on_all_ranks
from distrain.cluster.placement import grouped
from distrain.cluster.signals import StopRequest
from distrain.errors import DivergenceError, StopRequested
from distrain.reporting.reporter import Reporter
from distrain.runs.progress import Progress
from distrain.training.callbacks.keras_callbacks import KerasCallbacks
from distrain.training.checkpoints.saving import Saver
from distrain.training.feed import open_epoch
from distrain.training.figures.evaluation import evaluate_validation, validate_within_epoch
from distrain.training.loop.actions import agree_on_decision, every_steps, report_epochs, report_steps
from distrain.training.loop.early_stopping import EarlyStopping, better_figure
from distrain.training.loop.events import Decision
from distrain.training.loop.limits import Limits
from distrain.training.loop.loop import TrainingLoop, run_epochs
from distrain.training.loop.step_flags import StepFlags
from distrain.training.loop.throughput import StartupTime, Throughput
from distrain.training.nonfinite_steps import make_skip, where_of
from distrain.training.run_setup import RunSetup
from distrain.training.setup import CompiledSteps


@dataclass(frozen=True)
class RunActions:
    """The objects that take part between the steps of a run.

    Attributes:
        report: receives each event.
        step_flags: requests to stop and failures of all ranks.
        early_stopping: remembers the best epoch.
        callbacks: the user's Keras callbacks.
        limits: ends the run at its largest number of steps, or in time.
        saver: writes checkpoints.
        throughput: measures samples per second.
        startup: measures the time to the first step.
        history: metrics of each epoch, also of the epochs before a resume.
    """

    report: Reporter
    step_flags: StepFlags
    early_stopping: EarlyStopping
    callbacks: KerasCallbacks
    limits: Limits
    saver: Saver
    throughput: Throughput
    startup: StartupTime
    history: list[dict[str, float]]


def make_actions(setup: RunSetup, report: Reporter, *, stop: StopRequest, started_at: float) -> RunActions:
    """Return the actions of a run, in the state of the checkpoint to resume from.

    Args:
        setup: the run.
        report: receives each event.
        stop: whether this process received a request to stop.
        started_at: when the command started, on the boot clock.
    """
    config, model = setup.config, setup.trainable.model
    state = setup.restored.state if setup.restored else {}
    early_stopping = run_on_all_ranks(setup.distribution.group, partial(_early_stopping, setup))
    callbacks = KerasCallbacks(
        setup.job.callbacks,
        model=model,
        group=setup.distribution.group,
        num_epochs=config.epochs,
        num_steps=setup.epoch_plan().num_steps,
        verbose=setup.job.verbose,
    )
    limits = Limits(config, setup.distribution.group, setup.progress.global_step, state.get("run_seconds", 0.0))
    return RunActions(
        report,
        StepFlags(setup.distribution.group, stop, global_step=setup.progress.global_step),
        early_stopping,
        callbacks,
        limits,
        Saver(setup, early_stopping, callbacks, limits, report),
        Throughput(),
        StartupTime(report, started_at=started_at),
        history=callbacks.restore_history(setup.restored) if setup.restored else [],
    )


def _early_stopping(setup: RunSetup) -> EarlyStopping:
    config, model = setup.config, setup.trainable.model
    figures = setup.trainable.metrics.initial_results()
    if setup.job.validation is not None:
        figures |= {f"val_{name}": value for name, value in figures.items()}
    is_better = better_figure(model, figures, config.monitor, config.mode)
    state = setup.restored.state.get("early_stopping") if setup.restored else None
    return EarlyStopping(config.patience, state, monitor=config.monitor, is_better=is_better)


def train_epochs(
    setup: RunSetup, steps: CompiledSteps, actions: RunActions, *, at_step: Callable[[int], None]
) -> Progress:
    """Train until all epochs are trained or an action finishes training; `at_step` receives each global step.

    Raises:
        StopRequested: a rank received a request to stop; everything is saved.
        DivergenceError: a number is not finite that may not be skipped.
    """
    progress, report = setup.progress, actions.report
    if setup.was_complete:
        is_at_limit = setup.config.max_steps is not None and progress.global_step >= setup.config.max_steps
        more = "--max-steps" if is_at_limit else "--epochs"
        report.note(f"{setup.config.run} is finished already. Ask for more {more}, or train into another --run.")
        return progress
    _report_start(report, setup)
    at_step(progress.global_step)
    actions.callbacks.before_training(progress, setup.restored, setup.restore_variables)
    try:
        progress, decision = run_epochs(_training_loop(setup, steps, actions, at_step), progress)
    except DivergenceError as error:
        error.reporting_rank = 0  # every rank computed the same sums
        raise
    if decision is Decision.STOP:
        actions.saver.save(progress, epoch=progress.epoch)
    actions.saver.wait()
    if decision is Decision.STOP:
        stopped_by = actions.step_flags.stopped_by()
        raise _stopped(report, progress, stopped_by, is_temporary=setup.job.is_temporary)
    last_metrics = actions.history[-1] if actions.history else {}
    setup.finalize_weights()  # before `on_train_end`, as in Keras
    actions.callbacks.after_training(last_metrics, setup.model_state.weights_digest)
    reason = "all epochs are trained"
    if decision is Decision.FINISH:
        limit = f"{actions.limits.reached} is reached" if actions.limits.reached else ""
        is_exhausted = actions.early_stopping.is_exhausted()
        reason = actions.early_stopping.reason() if is_exhausted else limit or "a callback asked to"
    report.stop(epoch=progress.epoch, step=progress.global_step, reason=reason)
    return progress


def _training_loop(
    setup: RunSetup, steps: CompiledSteps, actions: RunActions, at_step: Callable[[int], None]
) -> TrainingLoop:
    config, step_flags, callbacks, report = setup.config, actions.step_flags, actions.callbacks, actions.report
    validate = validate_within_epoch(partial(evaluate_validation, setup, steps.evaluate, step_flags, report), report)
    validations = [every_steps(config.validate_every, validate)] if config.validate_every else []
    save_steps = [every_steps(config.checkpoint_every, actions.saver.after_step)] if config.checkpoint_every else []
    check_steps = [every_steps(config.check_every, actions.saver.check.every)] if config.check_every else []
    train_steps = step_flags.around_steps(steps.train, reads_late=setup.distribution.runs_ahead)
    evaluate = partial(evaluate_validation, setup, steps.evaluate, step_flags, report, callbacks.around_evaluation_step)
    has_validation = setup.job.validation is not None
    return TrainingLoop(
        num_epochs=config.epochs,
        open_epoch=partial(open_epoch, setup, step_flags),
        before_epoch=lambda epoch: max(callbacks.before_epoch(epoch), actions.limits.before_epoch(epoch)),
        train_steps=callbacks.around_steps(train_steps),
        evaluate=callbacks.around_evaluation(evaluate) if has_validation else evaluate,
        metrics_of=setup.metrics_of,
        after_step=[
            lambda event: at_step(event.progress.global_step),
            actions.throughput,
            actions.startup,
            actions.saver.poll,
            report_steps(report, setup.learning_rate),
            callbacks.after_step,
            actions.limits.after_step,
            *validations,
            *check_steps,
            *save_steps,
            step_flags.action,
        ],
        after_epoch=[
            actions.early_stopping,
            callbacks.after_epoch,
            actions.limits.after_epoch,
            agree_on_decision(setup.distribution.group),
            report_epochs(report, actions.history, actions.early_stopping, setup.learning_rate),
            lambda event: callbacks.add_figures(actions.history),
            actions.saver.after_epoch,
            step_flags.action,
        ],
        steps_per_execution=config.steps_per_execution,
        max_steps=config.max_steps,
        skip=make_skip(setup, report),
        runs_ahead=_runs_ahead(setup, callbacks),
        where_diverged=lambda: where_of(setup, bad) if (bad := step_flags.bad_evaluation()) else "",
    )


def _runs_ahead(setup: RunSetup, callbacks: KerasCallbacks) -> Callable[[int, int], bool]:
    """Return whether a call of the step may begin before its predecessor's sums are read; see `TrainingLoop`.

    Nothing may change the variables while an action looks at them, and a callback sees each step before the next.
    """
    config = setup.config
    looks_each_step = bool(max_over_ranks(setup.distribution.group, int(callbacks.sees_steps)))
    if looks_each_step or not setup.distribution.runs_ahead:
        return lambda before, after: False
    due = [every for every in (config.validate_every, config.checkpoint_every, config.check_every) if every]
    return lambda before, after: (
        not callbacks.stops_after_step and all(before // every == after // every for every in due)
    )


def _report_start(report: Reporter, setup: RunSetup) -> None:
    config, distribution = setup.config, setup.distribution
    devices = grouped(distribution.device_models)
    sizes = f"{distribution.num_replicas} x {setup.batch_size}"
    if config.accumulation_steps > 1:
        sizes += f" x {config.accumulation_steps}"
    where = "a temporary folder" if setup.job.is_temporary else config.run
    report.note(
        f"{setup.job.train.num_examples:,} examples, {sizes} per step ({distribution.name} on {devices}), "
        f"{setup.epoch_plan().num_steps:,} steps per epoch, at most {config.epochs} epochs, into {where}"
    )
    if config.limit_batches is not None:
        report.note(f"Dry run: --limit-batches trains and validates on {config.limit_batches} batches an epoch.")
    if setup.restored is not None:
        epoch, step = setup.progress.epoch + 1, setup.progress.global_step
        report.resume(epoch=epoch, step=step, path=setup.restored.path)


def _stopped(report: Reporter, progress: Progress, stopped_by: str, *, is_temporary: bool) -> StopRequested:
    report.stop(epoch=progress.epoch + 1, step=progress.global_step, reason=f"{stopped_by} received")
    fate = ", with everything saved. Run the same command again to go on."
    if is_temporary:
        fate = (
            ". Nothing stays on disk without run=DIRECTORY, but the model as trained so far is in the attribute "
            "result.model of this error."
        )
    stopped = StopRequested(f"Stopped by {stopped_by} at step {progress.global_step}{fate}")
    stopped.reporting_rank = 0
    return stopped
