"""Builds a run before its first step, equal on all ranks: run directory, model, compiled steps.

Decides: which variables training starts from. Never: trains.

    with open_run_directory(distribution, config, job) as restored:
        setup = build_setup(distribution, config, job, restored)
        steps = compile_steps(setup)

All ranks call each function here; the chief alone, rank 0, touches the run directory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distrain.batch import Batch
from distrain.cluster.agreement import check_alike
from distrain.cluster.error_relay import run_on_all_ranks
from distrain.config import TrainConfig
from distrain.data.batches import sample_batch
from distrain.data.examples import Examples
from distrain.data.nests import map_nest
from distrain.errors import CheckpointError, ConfigurationError
from distrain.runs.checkpoint import Checkpoint, pack_checkpoint, unpack_checkpoint
from distrain.runs.opening import open_run
from distrain.runs.progress import read_progress
from distrain.training.jobs.job import TrainingJob
from distrain.training.run_length import schedule_values, total_steps
from distrain.training.run_setup import RunSetup

if TYPE_CHECKING:
    from distrain.distribution.base import Distribution
    from distrain.training.steps.step import Step, Steps
    from distrain.training.steps.task import TrainableModel


@dataclass(frozen=True)
class CompiledSteps:
    """The compiled steps of a run.

    Attributes:
        train: trains one step or several in a call.
        evaluate: evaluates one step; None without validation data, as to trace it takes part of a short run.
    """

    train: Steps
    evaluate: Step | None


@contextmanager
def open_run_directory(
    distribution: Distribution, config: TrainConfig, job: TrainingJob
) -> Iterator[Checkpoint | None]:
    """Make the run directory or reopen it, and hold it while the context lasts.

    Yields:
        The checkpoint to resume from, equal on all ranks; None at the start of training.

    Raises:
        CheckpointError: the directory holds another run, another process trains in it, or its checkpoints are damaged.
        ConfigurationError: the directory cannot be written.
    """
    resolved = {
        **job.metadata,
        "data_digest": job.data_digest,
        "strategy": distribution.name,
        "num_replicas": distribution.num_replicas,
        "replica_batch_size": config.replica_batch_size(distribution.num_replicas),
        "global_batch_size": config.wanted_global_batch_size,
        **schedule_values(config, distribution.num_replicas, job.train.num_examples),
    }
    with ExitStack() as run:

        def open_on_chief() -> Checkpoint | None:
            if not distribution.group.is_chief:
                return None
            return run.enter_context(open_run(config, resolved, vectorizer=job.vectorizer))

        yield broadcast_checkpoint(distribution, run_on_all_ranks(distribution.group, open_on_chief))


def build_setup(
    distribution: Distribution, config: TrainConfig, job: TrainingJob, restored: Checkpoint | None
) -> RunSetup:
    """Build the model on all ranks, with the variables of `restored`, or else with the chief's.

    Raises:
        ConfigurationError: the model does not fit the data.
        DataError: a label is no class of the model; later labels are checked as they are read.
        CheckpointError: `restored` belongs to another model.
        RankError: the ranks built different models.
    """
    from distrain.models.architecture import architecture_of
    from distrain.models.description import describe
    from distrain.models.optimizers import choose_optimizer
    from distrain.models.state import ModelState
    from distrain.training.model_checks.label_classes import with_checked_labels
    from distrain.training.model_checks.replicas import fitted_to_replicas
    from distrain.training.model_checks.shares import check_shares, probe_of
    from distrain.training.steps.seeding import seeded
    from distrain.training.steps.task import make_task

    is_shipped = not config.model and "text" in job.metadata  # its loss and metrics are known to divide
    sample, num_replicas = sample_batch(job.train), distribution.num_replicas
    num_steps = total_steps(config, num_replicas, job.train.num_examples)

    def build_on(sample: Batch) -> tuple[TrainableModel, TrainingJob, Examples]:
        choice = partial(choose_optimizer, config=config, num_steps=num_steps, num_replicas=num_replicas)
        with seeded(config.seed):
            task = make_task(
                partial(job.build, choose_optimizer=choice),
                sample,
                scope=distribution.scope(),
                num_columns=job.train.num_columns,
                jit_compile=config.jit_compile,
                jit_model=config.jit_model,
            )
            checked_job = with_checked_labels(job, task, sample)
            probe = probe_of(checked_job.train, seed=config.seed, shuffle=job.shuffle)
            return task if is_shipped else check_shares(task, probe), checked_job, probe

    def build() -> tuple[TrainableModel, TrainingJob, Examples]:
        try:
            return build_on(sample)
        except ConfigurationError:
            # A loss that fails on the first labels may work on zeros. Then reading names a label that is no class.
            zeros = map_nest(lambda labels, _: np.zeros_like(labels), sample.labels)
            sample_batch(build_on(sample._replace(labels=zeros))[1].train)
            raise

    trainable, job, probe = run_on_all_ranks(distribution.group, build)
    distribution.disable_keras_all_reduce(trainable.optimizer)
    trainable = fitted_to_replicas(trainable, probe, distribution, accumulation_steps=config.accumulation_steps)
    model_state = ModelState(trainable.model, trainable.optimizer)
    description = describe(trainable.model)
    check_alike(distribution.group, {"the model": json.dumps([model_state.layout(), description])})
    if restored is not None:
        _refuse_other_model(restored, description)
        model_state.restore(restored)
    else:
        model_state.restore(broadcast_checkpoint(distribution, Checkpoint(Path(), model_state.arrays(), {})))
    architecture = None if is_shipped else architecture_of(trainable.model)
    progress = read_progress(restored, num_examples=job.train.num_examples)
    return RunSetup(
        config, distribution, job, restored, progress, trainable, model_state, sample, description, architecture
    )


def compile_steps(setup: RunSetup) -> CompiledSteps:
    """Compile the steps on all ranks.

    Raises:
        ConfigurationError: the model has no trainable weights, or its loss does not suit.
    """
    from distrain.training.steps import step as steps
    from distrain.training.steps.model_jit import check_model_jit
    from distrain.training.steps.task import batch_specs, first_call

    specs = batch_specs(setup.sample)

    def compile_own() -> CompiledSteps:
        evaluated = batch_specs(setup.validation_sample)
        with setup.distribution.scope():
            first_call(setup.trainable.model, setup.validation_sample, setup.trainable.num_columns)
        task, replicas, config = setup.trainable, setup.distribution, setup.config
        accumulated, skips = config.accumulation_steps, config.skip_nonfinite > 0
        check_model_jit(task, replicas, setup.sample)
        train = steps.make_train_steps(
            *(task, replicas, specs),
            accumulation_steps=accumulated,
            steps_per_execution=config.steps_per_execution,
            skips=skips,
        )
        if setup.job.validation is None:
            return CompiledSteps(train, None)
        return CompiledSteps(train, steps.make_evaluate_step(task, replicas, evaluated, accumulation_steps=accumulated))

    return run_on_all_ranks(setup.distribution.group, compile_own)


def broadcast_checkpoint(distribution: Distribution, checkpoint: Checkpoint | None) -> Checkpoint | None:
    """Return the chief's checkpoint on every rank; the other ranks' arguments are ignored."""
    if distribution.group.size == 1:
        return checkpoint
    content = distribution.group.broadcast(b"" if checkpoint is None else pack_checkpoint(checkpoint))
    return unpack_checkpoint(content) if content else None


def _refuse_other_model(restored: Checkpoint, description: dict[str, Any]) -> None:
    from distrain.models.description import difference

    before = restored.state.get("description")
    found = None if before is None else difference(before, description)
    if found:
        raise CheckpointError(
            f"{restored.path} was trained with {found}. Give the same model and arguments of compile to go on, or "
            "choose another run directory. A rate that is to change goes into a callback or a schedule."
        )
