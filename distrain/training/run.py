"""The straight line of `distrain train`, top to bottom; the only module that knows all the others.

Decides: the order of things in a run. Never: how any of them is done.

    summary = train(TrainConfig(data="data", run="runs/1"))
    result = run_job(lambda: job, config)

A `TrainingJob` names what is trained on what; `fit.py` makes one from arrays, `open_job.py` from a folder. Every
process of a run goes through all of this; the chief alone, rank 0, writes and reports.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distrain import __version__
from distrain.cluster.agreement import check_alike, code_digest, folder_digest, max_over_ranks, run_on_all_ranks
from distrain.cluster.world import find_world
from distrain.config import TrainConfig
from distrain.data.batches import epoch_batches, sample_batch, zero_weight_batch
from distrain.data.plan import EpochPlan
from distrain.data.prefetch import PREFETCH_STEPS, prefetched
from distrain.data.shuffle import epoch_order
from distrain.errors import DistrainError, DivergenceError, StopRequested
from distrain.keras_backend import require_tensorflow
from distrain.reporting.logs import limit_log_to_chief
from distrain.reporting.reporter import Reporter, RunReporter
from distrain.runs import directory as run_directory
from distrain.runs.checkpoint import Checkpoint, checkpoint_path, load_checkpoint, pack_checkpoint, unpack_checkpoint
from distrain.runs.progress import Progress, read_progress
from distrain.training.actions import (
    EarlyStopping,
    FirstStep,
    KerasCallbacks,
    StopRequest,
    Throughput,
    every_steps,
    report_epochs,
    report_steps,
    stop_requests,
)
from distrain.training.events import Decision, StepEvent
from distrain.training.job import TrainingJob, open_job
from distrain.training.loop import EpochSteps, evaluate_all, run_epochs
from distrain.training.saving import Saver
from distrain.training.step_flags import StepFlags

if TYPE_CHECKING:
    from distrain.distribution.base import Distribution
    from distrain.models.state import ModelState
    from distrain.training.step import TrainableModel

_LOG = logging.getLogger(__name__)

# Settings that may differ between ranks: each host has its own paths and devices.
_MAY_DIFFER = {"data", "run", "devices", "prometheus"}


@dataclass(frozen=True)
class Result:
    """A finished run: the best model, the content of `summary.json`, and the figures of each epoch trained here."""

    model: Any
    summary: dict[str, Any]
    history: list[dict[str, float]]


@dataclass(frozen=True)
class _Run:
    """What a run is made of, once the processes have agreed on it.

    Attributes:
        config, distribution, job: as given.
        batch_size: examples per replica and batch, B.
        restored: the checkpoint that training goes on from; None at the beginning.
        task: model, optimizer, loss and metrics.
        model_state: their variables, as `restored` has them.
    """

    config: TrainConfig
    distribution: Distribution
    job: TrainingJob
    batch_size: int
    restored: Checkpoint | None
    task: TrainableModel
    model_state: ModelState

    @property
    def num_microbatches(self) -> int:
        """Batches in a step over all replicas."""
        return self.distribution.num_replicas * self.config.accumulation_steps

    @property
    def local_microbatches(self) -> range:
        """Those of them that this process feeds."""
        local, per_replica = self.distribution.local_replicas, self.config.accumulation_steps
        return range(local.start * per_replica, local.stop * per_replica)


def train(config: TrainConfig, *, stop: StopRequest | None = None, began: float | None = None) -> dict[str, Any]:
    """Train on a prepared data set or a folder of arrays; returns the summary.

    Args:
        config: what is trained, and how.
        stop: of `listen_for_stop`; default: listens while training lasts.
        began: when the command was started, in seconds since 1970; default: now.

    Raises:
        DistrainError: of the kind that says what the user can mend.
    """
    return run_job(lambda: open_job(config), config, stop=stop, began=began).summary


def run_job(
    open_job: Callable[[], TrainingJob],
    config: TrainConfig,
    *,
    reporter: Callable[[Path], Reporter] | None = None,
    stop: StopRequest | None = None,
    began: float | None = None,
) -> Result:
    """Train a job to its end, together with all other processes of the run.

    Args:
        open_job: gives what is trained; an error in it reaches all processes.
        config: how.
        reporter: run directory -> who reports; default: the console and the run directory.
        stop: whether somebody asks to stop; default: listens while training lasts.
        began: when it was asked for, in seconds since 1970; default: now.

    Raises:
        StopRequested: somebody asked to stop; everything is saved.
        DivergenceError: the loss is not finite.
        RankError: the processes differ, or cannot be joined.
        CheckpointError: the run directory holds another run, or its checkpoints are damaged.
        ConfigurationError, DataError: the settings or the data do not allow it.
    """
    began = time.time() if began is None else began
    require_tensorflow()
    from distrain.cluster.failure_detector import watching
    from distrain.distribution.choose import choose

    failure: DistrainError | None = None
    with stop_requests() if stop is None else nullcontext(stop) as stop:
        limit_log_to_chief(find_world(os.environ).rank)
        distribution = choose(config, os.environ)
        with watching(distribution.rank, distribution.num_processes, distribution.all_gather_bytes) as watch:
            try:
                with ExitStack() as held:
                    run = _open(open_job, config, distribution, held)
                    result = _train(run, watch, reporter or _reporter(config), stop, began)
            except DistrainError as error:
                if error.reporting_rank is None:  # the others do not know of it: the watch tells them
                    raise
                failure = error
            distribution.all_gather_bytes(b"")  # nobody leaves before the chief has written everything
    if failure is not None:
        raise failure
    return result


def _open(
    open_job: Callable[[], TrainingJob], config: TrainConfig, distribution: Distribution, held: ExitStack
) -> _Run:
    """Everything up to the first step, the same on all processes; `held` gives back what the run takes hold of."""
    import keras

    from distrain.models.state import ModelState
    from distrain.training.task import make_task

    # What is trained.
    job = run_on_all_ranks(distribution, open_job)
    check_alike(distribution, _facts(config, job, distribution))

    # The replicas, and what each is fed.
    num_replicas = distribution.num_replicas
    batch_size = config.replica_batch_size(num_replicas)
    if distribution.is_chief:
        _tell_about_batches(config, job.train.num_examples, num_replicas, batch_size)
        if config.compression != "none" and distribution.num_processes == 1:
            _LOG.warning(f"--compression {config.compression} has no effect: nothing travels between processes.")

    # The run directory, before anything slow: the chief's.
    resolved = {
        **job.metadata,
        "data_digest": job.data_digest,
        "strategy": distribution.name,
        "num_replicas": num_replicas,
        "replica_batch_size": batch_size,
        "global_batch_size": config.wanted_global_batch_size,
    }

    def take_up() -> Checkpoint | None:
        if not distribution.is_chief:
            return None
        restored = run_directory.open_run(config, resolved, vectorizer=job.vectorizer)
        held.callback(os.close, run_directory.hold_run(config.run))
        return restored

    restored = _of_chief(distribution, run_on_all_ranks(distribution, take_up))

    # Model and optimizer, as the checkpoint has them, else as the chief made them.
    def make() -> Any:
        keras.utils.set_random_seed(config.seed % 2**32)
        return make_task(
            job.build,
            sample_batch(job.train),
            scope=distribution.scope(),
            num_columns=job.train.num_columns,
            jit_compile=config.jit_compile,
        )

    task = run_on_all_ranks(distribution, make)
    distribution.disable_keras_all_reduce(task.optimizer)
    model_state = ModelState(task.model, task.optimizer)
    check_alike(distribution, {"the model": json.dumps(model_state.layout())})
    if restored is not None:
        model_state.restore(restored)
    else:
        model_state.restore(_of_chief(distribution, Checkpoint(Path(), model_state.arrays(), {})))
    return _Run(config, distribution, job, batch_size, restored, task, model_state)


def _train(run: _Run, watch: Any, reporter: Callable[[Path], Reporter], stop: StopRequest, began: float) -> Result:
    """The loop, and what comes of it."""
    from distrain.training import step as steps
    from distrain.training.task import batch_specs

    config, distribution, job, task, model_state = run.config, run.distribution, run.job, run.task, run.model_state

    # Compiled steps, which tell the other processes of a request to stop or a failure.
    sample = sample_batch(job.train)
    specs = batch_specs(sample)

    def compile_steps() -> tuple[steps.Steps, steps.Step]:
        train_steps = steps.make_train_steps(
            task,
            distribution,
            specs,
            accumulation_steps=config.accumulation_steps,
            steps_per_execution=config.steps_per_execution,
        )
        return train_steps, steps.make_evaluate_step(task, distribution, specs)

    train_steps, evaluate_step = run_on_all_ranks(distribution, compile_steps)
    local = run.local_microbatches
    progress = read_progress(run.restored)
    step_flags = StepFlags(distribution, stop, global_step=progress.global_step)

    def figures(sums: Any) -> dict[str, float]:
        return steps.figures(sums, task.metrics)

    def synchronize() -> None:
        distribution.synchronize(task.model.non_trainable_variables)

    def open_epoch(progress: Progress) -> EpochSteps:
        plan = EpochPlan(job.train.num_examples, run.num_microbatches, run.batch_size, progress.position)
        order = epoch_order(plan.num_examples, seed=config.seed, epoch=progress.epoch)
        batches = epoch_batches(job.train, plan, order, replicas=local, epoch=progress.epoch)
        depth = max(PREFETCH_STEPS, 2 * config.steps_per_execution)
        fed = prefetched(batches, depth=depth, in_thread=distribution.prefetches)
        idle = [zero_weight_batch(sample, share) for share in local]
        return EpochSteps(
            plan.num_steps, lambda step: len(plan.global_positions(step)), step_flags.with_failure_batches(fed, idle)
        )

    def evaluate() -> dict[str, float] | None:
        synchronize()
        if job.validation is None:
            return {}
        replicas = distribution.local_replicas
        plan = EpochPlan(job.validation.num_examples, distribution.num_replicas, run.batch_size)
        order = epoch_order(plan.num_examples, seed=0, epoch=0, shuffle=False)
        batches = epoch_batches(job.validation, plan, order, replicas=replicas)
        fed = prefetched(batches, in_thread=distribution.prefetches)
        idle = [zero_weight_batch(sample, replica) for replica in replicas]
        step = step_flags.around(evaluate_step, microbatches_per_process=len(replicas))
        return evaluate_all(
            step_flags.with_failure_batches(fed, idle),
            step,
            figures,
            after_step=lambda done: report.evaluating(step=done, num_steps=plan.num_steps),
            interrupted=step_flags.stop_is_agreed,
        )

    def agree(event: StepEvent) -> Decision:
        """A callback may decide by what only its own process sees."""
        return Decision(max_over_ranks(distribution, event.decision))

    def check_weights(event: StepEvent) -> None:
        synchronize()
        if distribution.num_processes > 1:  # else a digest for nothing
            check_alike(distribution, {f"the weights after epoch {event.epoch + 1}": model_state.weights_digest()})

    def follow(event: StepEvent) -> None:
        watch.at_step(event.progress.global_step)

    # Where training stands.
    state = run.restored.state if run.restored else {}
    early_stopping = EarlyStopping(config.patience, state.get("early_stopping"))
    num_steps = EpochPlan(job.train.num_examples, run.num_microbatches, run.batch_size).num_steps
    callbacks = KerasCallbacks(list(job.callbacks), model=task.model, num_epochs=config.epochs, num_steps=num_steps)
    is_finished = run.restored is not None and run_directory.is_finished(config, run.restored)
    history: list[dict[str, float]] = []
    throughput = Throughput()

    with reporter(config.run) if distribution.is_chief else Reporter() as report:
        first_step = FirstStep(report, began=began)
        saver = Saver(
            config,
            model_state,
            early_stopping,
            report,
            data_digest=job.data_digest,
            is_chief=distribution.is_chief,
            synchronize=synchronize,
        )
        every = [every_steps(config.checkpoint_every, saver.after_step)] if config.checkpoint_every else []

        # The loop.
        if is_finished:
            report.note(f"{config.run} is finished already. Ask for more --epochs, or train into another --run.")
        else:
            _say_start(report, run, num_steps)
            if run.restored is not None:
                report.resume(epoch=progress.epoch + 1, step=progress.global_step, path=run.restored.path)
            watch.at_step(progress.global_step)
            callbacks.before_training()
            try:
                progress, decision = run_epochs(
                    progress,
                    num_epochs=config.epochs,
                    open_epoch=open_epoch,
                    before_epoch=callbacks.before_epoch,
                    train_steps=callbacks.around_steps(
                        step_flags.around_steps(train_steps, microbatches_per_process=len(local))
                    ),
                    steps_per_execution=config.steps_per_execution,
                    evaluate=callbacks.around_evaluation(evaluate),
                    figures=figures,
                    after_step=[
                        follow,
                        throughput,
                        first_step,
                        report_steps(report),
                        callbacks.after_step,
                        *every,
                        step_flags.action,
                    ],
                    after_epoch=[
                        early_stopping,
                        callbacks.after_epoch,
                        agree,
                        check_weights,
                        report_epochs(report, history),
                        saver.after_epoch,
                        step_flags.action,
                    ],
                    where_diverged=step_flags.where_diverged,
                )
            except DivergenceError as error:
                error.reporting_rank = 0  # every process knows it by the same sums
                raise
            if decision is Decision.STOP:
                saver.save(progress, epoch=progress.epoch)
                by = step_flags.stopped_by()
                report.stop(epoch=progress.epoch + 1, step=progress.global_step, reason=f"{by} received")
                stopped = StopRequested(
                    f"Stopped by {by} at step {progress.global_step}, with everything saved. "
                    "Run the same command again to go on."
                )
                stopped.reporting_rank = 0
                raise stopped
            callbacks.after_training(history[-1] if history else {})
            reason = "all epochs are trained"
            if decision is Decision.FINISH:
                stalled = early_stopping.is_exhausted()
                reason = "the validation loss stopped falling" if stalled else "a callback asked to"
            report.stop(epoch=progress.epoch, step=progress.global_step, reason=reason)

        # The best model, and the result.
        best_step = early_stopping.best_step
        if best_step is not None and best_step != progress.global_step:
            model_state.restore(_best(run, best_step))
        summary = {
            **_summary(run, progress, early_stopping.best_figures, throughput.samples_per_second()),
            "startup_seconds": first_step.seconds,
        }
        if distribution.is_chief:
            if is_finished:
                summary = run_directory.read_summary(config.run) or summary
            run_directory.write_model(config.run, task.model)
            report.finish(summary)
    return Result(task.model, json.loads(distribution.broadcast(json.dumps(summary).encode())), history)


def _summary(run: _Run, progress: Progress, best: dict[str, float], samples_per_second: float | None) -> dict[str, Any]:
    return {
        "validation_accuracy": best.get("val_accuracy"),
        "validation_loss": best.get("val_loss"),
        "train_seconds": progress.train_seconds,
        "samples_per_second": samples_per_second or progress.examples_trained / max(progress.train_seconds, 1e-9),
        "num_replicas": run.distribution.num_replicas,
        "strategy": run.distribution.name,
        "epochs": progress.epoch,
        "global_steps": progress.global_step,
        "examples_trained": progress.examples_trained,
        "weights_sha256": run.model_state.weights_digest(),
        "data_digest": run.job.data_digest,
    }


def _best(run: _Run, step: int) -> Checkpoint:
    """The chief's checkpoint of the best step, on every process."""

    def load() -> Checkpoint | None:
        path = checkpoint_path(run.config.run / "checkpoints", step)
        return load_checkpoint(path) if run.distribution.is_chief else None

    best = _of_chief(run.distribution, run_on_all_ranks(run.distribution, load))
    assert best is not None
    return best


def _of_chief(distribution: Distribution, checkpoint: Checkpoint | None) -> Checkpoint | None:
    """The chief's checkpoint, on every process; only the chief need have one."""
    if distribution.num_processes == 1:
        return checkpoint
    content = distribution.broadcast(b"" if checkpoint is None else pack_checkpoint(checkpoint))
    return unpack_checkpoint(content) if content else None


def _facts(config: TrainConfig, job: TrainingJob, distribution: Distribution) -> dict[str, str]:
    """What must be the same on every process."""
    settings = {name: str(value) for name, value in asdict(config).items() if name not in _MAY_DIFFER}
    return {
        **settings,
        "distrain's version": __version__,
        "distrain's code": code_digest(),
        "the data": job.data_digest,
        "the data's description": json.dumps(job.metadata, sort_keys=True),
        "the vocabulary": folder_digest(job.vectorizer) if job.vectorizer else "",
        "the strategy": f"{distribution.name}, {distribution.version}",
        "Python's version": platform.python_version(),
        **{f"{package}'s version": version(package) for package in ("keras", "numpy", "scipy")},
        "TensorFlow's version": _tensorflow_version(),
    }


def _tensorflow_version() -> str:
    import tensorflow as tf

    return str(tf.__version__)


def _reporter(config: TrainConfig) -> Callable[[Path], Reporter]:
    return lambda run: RunReporter(run, num_epochs=config.epochs, prometheus=config.prometheus)


def _tell_about_batches(config: TrainConfig, num_examples: int, num_replicas: int, batch_size: int) -> None:
    wanted = config.wanted_global_batch_size
    per_step = num_replicas * config.accumulation_steps
    shares, what = f"{num_replicas} x {batch_size}", f"{num_replicas} replicas"
    if config.accumulation_steps > 1:
        shares, what = f"{shares} x {config.accumulation_steps}", f"{what} x {config.accumulation_steps} batches"
    if wanted is not None and batch_size * per_step != wanted:
        _LOG.warning(
            f"--global-batch-size {wanted} does not divide by {what}; using the "
            f"nearest, {shares} = {per_step * batch_size}. The model differs a little from "
            "one trained with the size asked for."
        )
    num_batches = EpochPlan(num_examples, per_step, batch_size).num_batches
    if num_batches < per_step:
        _LOG.warning(
            f"{num_examples} training examples make {num_batches} batches of {batch_size}, fewer than the "
            f"{what}: some have nothing to do. Use fewer replicas or a smaller batch."
        )


def _say_start(report: Reporter, run: _Run, num_steps: int) -> None:
    shares = f"{run.distribution.num_replicas} x {run.batch_size}"
    if run.config.accumulation_steps > 1:
        shares += f" x {run.config.accumulation_steps}"
    report.note(
        f"{run.job.train.num_examples:,} examples, {shares} per step "
        f"({run.distribution.name}), {num_steps:,} steps per epoch, at most {run.config.epochs} epochs, "
        f"into {run.config.run}"
    )
