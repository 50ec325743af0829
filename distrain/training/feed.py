"""The batches that one process feeds to its replicas: the rest of an epoch, or one evaluation.

Decides: the plan and the order of an epoch or an evaluation. Never: what a batch holds, or how a step uses a batch.

    steps = open_epoch(setup, step_flags, progress)
    plan, batches = open_evaluation(setup, step_flags, setup.job.validation)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

from distrain.batch import Batch
from distrain.data.batches import epoch_batches, idle_batch
from distrain.data.examples import Examples
from distrain.data.plan import EpochPlan
from distrain.data.prefetch import PREFETCH_STEPS, prefetched
from distrain.data.shuffle import ShuffledOrder
from distrain.runs.progress import Progress
from distrain.training.loop.loop import EpochSteps
from distrain.training.loop.step_flags import StepFlags
from distrain.training.run_length import limited_examples
from distrain.training.run_setup import RunSetup


def open_epoch(setup: RunSetup, step_flags: StepFlags, progress: Progress) -> EpochSteps:
    """Return the steps of the current epoch from `progress.position` to its end, in shuffled order."""
    plan = setup.epoch_plan(progress.position)
    order = setup.job.train.order(seed=setup.config.seed, epoch=progress.epoch, shuffle=setup.job.shuffle)
    local = setup.local_microbatches
    batches = epoch_batches(setup.job.train, plan, order, replicas=local, epoch=progress.epoch)
    depth = max(PREFETCH_STEPS, 2 * setup.config.steps_per_execution)
    ready = _ready(setup, batches, depth)
    empty = [idle_batch(setup.sample, number) for number in local]
    return EpochSteps(
        plan.num_steps, lambda step: len(plan.global_positions(step)), step_flags.with_failure_batches(ready, empty)
    )


def open_evaluation(
    setup: RunSetup, step_flags: StepFlags, examples: Examples
) -> tuple[EpochPlan, AbstractContextManager[Iterator[list[Batch]]]]:
    """Return the plan and the batches of an evaluation, in the order of the data."""
    distribution = setup.distribution
    local = setup.local_microbatches
    num_microbatches = distribution.num_replicas * setup.config.accumulation_steps
    limit = limited_examples(setup.config, examples.num_examples, num_microbatches * setup.batch_size)
    plan, order = evaluation_plan(examples, num_microbatches, setup.batch_size, limit=limit)
    batches = epoch_batches(examples, plan, order, replicas=local)
    ready = _ready(setup, batches, PREFETCH_STEPS)
    empty = [idle_batch(setup.validation_sample, number) for number in local]
    return plan, step_flags.with_failure_batches(ready, empty)


def _ready(
    setup: RunSetup, batches: Iterator[list[Batch]], depth: int
) -> AbstractContextManager[Iterator[list[Batch]]]:
    """Make batches ahead, at least `depth` of them, and place them on the devices of GPUs."""
    from distrain.distribution.device_prefetch import placed_ahead

    ready = prefetched(batches, depth=depth, in_thread=setup.distribution.prefetches)
    devices = setup.distribution.batch_devices
    return placed_ahead(ready, devices) if devices else ready


def evaluation_plan(
    examples: Examples, num_replicas: int, batch_size: int, *, limit: int | None = None
) -> tuple[EpochPlan, ShuffledOrder]:
    """Return the plan and the order of one pass over the first `limit` examples, or all, in the order of the data."""
    plan = EpochPlan(limit or examples.num_examples, num_replicas, batch_size)
    return plan, examples.order(seed=0, epoch=0, shuffle=False)
