"""The straight line of `distrain train`, top to bottom; the only module that knows all the others.

Decides: the order of things in a run. Never: how any of them is done.

    summary = train(TrainConfig(data="data", run="runs/1"))
    result = run_job(job, config, reporter)

A `Job` is what is trained on what; `keras_fit.py` makes one from a user's arrays, `jobs.py` from a folder.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distrain import run_directory
from distrain.actions import EarlyStopping, KerasCallbacks, Throughput, every_steps, stop_requests
from distrain.checkpoint import checkpoint_path, load_checkpoint, retain_checkpoints, save_checkpoint
from distrain.config import TrainConfig
from distrain.data.batches import epoch_batches, prefetched, sample_batch
from distrain.data.examples import Examples
from distrain.data.plan import EpochPlan, epoch_order
from distrain.errors import StopRequested
from distrain.job import Job
from distrain.jobs import open_job
from distrain.keras_backend import require_tensorflow
from distrain.loop import EpochSteps, evaluate_all, run_epochs
from distrain.progress import Decision, Moment, Progress
from distrain.report import Reporter, RunReporter
from distrain.world import find_world


@dataclass(frozen=True)
class Result:
    """A finished run: the best model, the content of `summary.json`, and the figures of each epoch trained here."""

    model: Any
    summary: dict[str, Any]
    history: list[dict[str, float]]


def warn(message: str) -> None:
    """Print a warning on standard error."""
    print(f"distrain: warning: {message}", file=sys.stderr)


def train(config: TrainConfig) -> dict[str, Any]:
    """Train on a prepared data set or a folder of arrays; returns the summary.

    Raises:
        DistrainError: of the kind that says what the user can mend.
    """
    require_tensorflow()
    return run_job(open_job(config), config).summary


def run_job(job: Job, config: TrainConfig, *, reporter: Callable[[Path], Reporter] | None = None) -> Result:
    """Train a job to its end.

    Args:
        job: what is trained.
        config: how.
        reporter: run directory -> who reports; default: the console and the run directory.

    Raises:
        StopRequested: somebody asked to stop; everything is saved.
        DivergenceError: the loss is not finite.
        CheckpointError: the run directory holds another run, or its checkpoints are damaged.
        ConfigurationError, DataError: the settings or the data do not allow it.
    """
    require_tensorflow()
    import keras

    from distrain import step as steps
    from distrain.distribution import choose
    from distrain.models.state import ModelState
    from distrain.task import batch_specs, make_task

    # The replicas, and what each is fed.
    distribution = choose(config.strategy, devices=config.devices, world=find_world(os.environ))
    num_replicas = distribution.num_replicas
    batch_size = config.replica_batch_size(num_replicas)
    _tell_about_batches(config, job.train.num_examples, num_replicas, batch_size)

    # The run directory, before anything slow.
    resolved = {
        **job.facts,
        "data_digest": job.data_digest,
        "strategy": distribution.name,
        "num_replicas": num_replicas,
        "replica_batch_size": batch_size,
        "global_batch_size": config.wanted_global_batch_size,
    }
    restored = run_directory.open_run(config, resolved, vectorizer=job.vectorizer, warn=warn)
    is_finished = restored is not None and run_directory.is_finished(config, restored)

    # Model, optimizer and compiled steps.
    keras.utils.set_random_seed(config.seed % 2**32)
    sample = sample_batch(job.train)
    task = make_task(
        job.build,
        sample,
        scope=distribution.scope(),
        num_columns=job.train.num_columns,
        jit_compile=config.jit_compile,
    )
    distribution.adopt(task.optimizer)
    specs = batch_specs(sample)
    train_step = steps.make_train_step(task, distribution, specs)
    evaluate_step = steps.make_evaluate_step(task, distribution, specs)
    model_state = ModelState(task.model, task.optimizer)

    def figures(sums: Any) -> dict[str, float]:
        return steps.figures(sums, task.metrics)

    def open_epoch(progress: Progress) -> EpochSteps:
        plan = EpochPlan(job.train.num_examples, num_replicas, batch_size, progress.position)
        order = epoch_order(plan.num_examples, seed=config.seed, epoch=progress.epoch)
        callbacks.before_epoch(progress.epoch)
        return EpochSteps(
            plan.num_steps,
            lambda step: len(plan.global_positions(step)),
            _batches(job.train, plan, order, distribution.local_replicas, progress.epoch),
        )

    def evaluate() -> dict[str, float] | None:
        if job.validation is None:
            return {}
        plan = EpochPlan(job.validation.num_examples, num_replicas, batch_size)
        order = epoch_order(plan.num_examples, seed=0, epoch=0, shuffle=False)
        batches = _batches(job.validation, plan, order, distribution.local_replicas, 0)
        return evaluate_all(batches, evaluate_step, figures, interrupted=stop.requested)

    # Where training stands.
    state = restored.state if restored else {}
    progress = run_directory.read_progress(restored)
    if restored is not None:
        model_state.restore(restored)
    early_stopping = EarlyStopping(config.patience, state.get("early_stopping"))
    num_steps = EpochPlan(job.train.num_examples, num_replicas, batch_size).num_steps
    callbacks = KerasCallbacks(list(job.callbacks), model=task.model, num_epochs=config.epochs, num_steps=num_steps)
    history: list[dict[str, float]] = []
    throughput = Throughput()

    with stop_requests() as stop, (reporter or _reporter(config))(config.run) as report:
        saved: Progress | None = None

        def save(progress: Progress, *, epoch: int, finished: str = "") -> None:
            nonlocal saved
            if not distribution.is_chief or progress is saved:
                return
            saved = progress
            arrays = {**model_state.arrays(), **run_directory.progress_arrays(progress)}
            began = time.perf_counter()
            best_step = early_stopping.best_step
            path = save_checkpoint(
                config.run / "checkpoints",
                progress.global_step,
                arrays,
                {
                    **run_directory.progress_state(progress),
                    **model_state.layout(),
                    "early_stopping": early_stopping.state(),
                    "finished": finished,
                    "data_digest": job.data_digest,
                },
            )
            retain_checkpoints(config.run / "checkpoints", keep=config.keep, best_step=best_step)
            report.checkpoint(
                epoch=epoch + 1,
                step=progress.global_step,
                path=path,
                seconds=time.perf_counter() - began,
                best=best_step == progress.global_step,
            )

        def save_step(moment: Moment) -> None:
            save(moment.progress, epoch=moment.epoch)

        def save_epoch(moment: Moment) -> None:
            finished = "epochs" if moment.progress.epoch >= config.epochs else ""
            if moment.decision is Decision.FINISH:
                finished = "early stopping" if early_stopping.is_exhausted() else "callback"
            save(moment.progress, epoch=moment.epoch, finished=finished)

        def report_step(moment: Moment) -> None:
            report.step(
                epoch=moment.epoch + 1,
                step=moment.progress.global_step,
                steps_per_epoch=moment.num_steps,
                num_examples=moment.num_examples,
                logs=moment.figures,
            )

        def report_epoch(moment: Moment) -> None:
            logs = dict(moment.figures())
            history.append(logs)
            report.epoch(
                epoch=moment.epoch + 1,
                step=moment.progress.global_step,
                num_examples=moment.num_examples,
                seconds=moment.seconds,
                logs=logs,
            )

        # The loop.
        if is_finished:
            report.note(f"{config.run} is finished already. Ask for more --epochs, or train into another --run.")
        else:
            _say_start(report, job, config, distribution, batch_size, num_steps)
            if restored is not None:
                report.resume(epoch=progress.epoch + 1, step=progress.global_step, path=restored.path)
            callbacks.before_training()
            every = [every_steps(config.checkpoint_every, save_step)] if config.checkpoint_every else []
            progress, decision = run_epochs(
                progress,
                num_epochs=config.epochs,
                open_epoch=open_epoch,
                train_step=callbacks.around_step(train_step),
                evaluate=callbacks.around_evaluation(evaluate),
                figures=figures,
                after_step=[throughput, report_step, callbacks.after_step, *every, stop.action],
                after_epoch=[early_stopping, callbacks.after_epoch, report_epoch, save_epoch, stop.action],
            )
            if decision is Decision.STOP:
                save(progress, epoch=progress.epoch)
                report.stop(epoch=progress.epoch + 1, step=progress.global_step, reason=f"{stop.signal_name} received")
                raise StopRequested(
                    f"Stopped by {stop.signal_name} at step {progress.global_step}, with everything saved. "
                    "Run the same command again to go on."
                )
            callbacks.after_training(history[-1] if history else {})
            reason = "all epochs are trained"
            if decision is Decision.FINISH:
                stalled = early_stopping.is_exhausted()
                reason = "the validation loss stopped falling" if stalled else "a callback asked to"
            report.stop(epoch=progress.epoch, step=progress.global_step, reason=reason)

        # The best model, and the result.
        best_step = early_stopping.best_step
        if best_step is not None and best_step != progress.global_step:
            model_state.restore(load_checkpoint(checkpoint_path(config.run / "checkpoints", best_step)))
        best = early_stopping.best_figures
        summary = run_directory.read_summary(config.run) if is_finished else None
        summary = summary or {
            "validation_accuracy": best.get("val_accuracy"),
            "validation_loss": best.get("val_loss"),
            "train_seconds": progress.train_seconds,
            "samples_per_second": throughput.samples_per_second() or _rate(progress),
            "num_replicas": num_replicas,
            "strategy": distribution.name,
            "epochs": progress.epoch,
            "global_steps": progress.global_step,
            "examples_trained": progress.examples_trained,
            "weights_sha256": model_state.weights_digest(),
            "data_digest": job.data_digest,
        }
        if distribution.is_chief:
            run_directory.write_model(config.run, task.model, warn=warn)
            report.finish(summary)
    return Result(task.model, summary, history)


def _rate(progress: Progress) -> float:
    return progress.examples_trained / max(progress.train_seconds, 1e-9)


def _reporter(config: TrainConfig) -> Callable[[Path], Reporter]:
    return lambda run: RunReporter(run, num_epochs=config.epochs)


def _tell_about_batches(config: TrainConfig, num_examples: int, num_replicas: int, batch_size: int) -> None:
    wanted = config.wanted_global_batch_size
    if wanted is not None and batch_size * num_replicas != wanted:
        warn(
            f"--global-batch-size {wanted} does not divide by {num_replicas} replicas; using the "
            f"nearest, {num_replicas} x {batch_size} = {num_replicas * batch_size}. The model differs a little from "
            "one trained with the size asked for."
        )
    num_batches = EpochPlan(num_examples, num_replicas, batch_size).num_batches
    if num_batches < num_replicas:
        warn(
            f"{num_examples} training examples make {num_batches} batches of {batch_size}, fewer than the "
            f"{num_replicas} replicas: some have nothing to do. Use fewer replicas or a smaller batch."
        )


def _say_start(
    report: Reporter, job: Job, config: TrainConfig, distribution: Any, batch_size: int, num_steps: int
) -> None:
    report.note(
        f"{job.train.num_examples:,} examples, {distribution.num_replicas} x {batch_size} per step "
        f"({distribution.name}), {num_steps:,} steps per epoch, at most {config.epochs} epochs, into {config.run}"
    )


def _batches(
    examples: Examples, plan: EpochPlan, order: Any, replicas: range, epoch: int
) -> AbstractContextManager[Any]:
    if plan.num_steps == 0:  # an epoch whose last step was trained before the run stopped
        return nullcontext(iter(()))
    return prefetched(epoch_batches(examples, plan, order, replicas=replicas, epoch=epoch))
