"""Trains one step of a run again, to tell a bad host from a bad batch, and writes nothing into the run.

Decides: where training starts, and which figures of the step are shown. Never: saves, evaluates, or calls a callback.

    figures = replay_step(Path("runs/1"), 1200)        # in one process, or in each rank of a launcher

Training starts from the newest usable checkpoint before the step, or from the initial weights.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distrain.batch import Batch
from distrain.cluster.error_relay import run_on_all_ranks
from distrain.cluster.signals import StopRequest
from distrain.cluster.world import find_world
from distrain.config import TrainConfig
from distrain.errors import CheckpointError, ConfigurationError, StopRequested
from distrain.file_names import CHECKPOINTS_NAME, CONFIG_NAME
from distrain.keras_backend.start import require_tensorflow
from distrain.reporting.metrics_log import json_scalar
from distrain.runs.checkpoint import Checkpoint, list_checkpoints, step_of
from distrain.runs.directory import config_of, read_settings
from distrain.runs.manifest import check_files, load_own_checkpoint
from distrain.runs.progress import Progress, Sums
from distrain.training.checkpoints.state_check import StateCheck
from distrain.training.feed import open_epoch
from distrain.training.jobs.agreement import agree_on_job
from distrain.training.jobs.job import open_job
from distrain.training.jobs.named_data import names_function
from distrain.training.loop.events import Decision, NotFinite, StepEvent
from distrain.training.loop.loop import TrainingLoop, run_epochs
from distrain.training.loop.step_flags import StepFlags
from distrain.training.nonfinite_steps import examples_of, where_of
from distrain.training.ranks import on_ranks
from distrain.training.run_setup import RunSetup
from distrain.training.setup import broadcast_checkpoint, build_setup, compile_steps

if TYPE_CHECKING:
    from distrain.distribution.base import Distribution

_LOG = logging.getLogger(__name__)


def replay_step(
    run: Path,
    step: int,
    *,
    data: Path | None = None,
    devices: str | None = None,
    trust: bool = False,
    stop: StopRequest | None = None,
) -> dict[str, Any]:
    """Train up to a step, and return the figures of this step; all ranks of a job must call this.

    Args:
        run: run directory, which every rank can read.
        step: global step, from 1.
        data: prepared data, folder of arrays or named function; default: the data that the run names.
        devices: devices of this process, such as "cpu:1"; default: the devices that the run names.
        trust: whether the functions may run that the run names as `--model` and `--data`.
        stop: whether this process received a request to stop; default: listen to signals.

    Returns:
        On the chief: loss and metrics, whether all numbers are finite, digests after the step, and example numbers.

    Raises:
        ConfigurationError: the run has no such step, or cannot be trained again here.
        CheckpointError: `run` is not a run directory, or no checkpoint before the step can be used.
        RankError: the ranks differ after the step.
        StopRequested: a rank received a request to stop.
    """
    require_tensorflow()
    check_files(run, CONFIG_NAME)
    config = _config(run, read_settings(run), data, trust)
    config = replace(config, devices=devices or config.devices)

    def work(distribution: Distribution, stop: StopRequest, at_step: Callable[[int], None]) -> dict[str, Any]:
        job = agree_on_job(distribution, partial(open_job, config), config)
        load = partial(_start, run, step, job.data_digest) if distribution.group.is_chief else lambda: None
        restored = broadcast_checkpoint(distribution, run_on_all_ranks(distribution.group, load))
        setup = build_setup(distribution, config, job, restored)
        _check_batch(setup)
        return _Replay(setup, stop, at_step).figures(step)

    return on_ranks(config, work, stop=stop)


def _config(run: Path, settings: dict[str, Any], data: Path | None, trust: bool) -> TrainConfig:
    """Return the settings of a run, changed where this job has other processes."""
    config = config_of(settings)
    if config.model is None and "text" not in settings:
        raise ConfigurationError(
            f"{run} was trained by distrain.fit, whose arrays no command can load. Replay takes a run of 'distrain "
            "train'."
        )
    named = {"--data": str(config.data)} if data is None and names_function(config.data) else {}
    named |= {"--model": config.model} if config.model is not None else {}
    if named and not trust:
        functions = " and ".join(named.values())
        options = " ".join(f"{option} {name}" for option, name in named.items())
        raise ConfigurationError(
            f"{run} was trained with {options}. If you trust this run and the modules in the current folder, add "
            f"--trust: then distrain imports and calls {functions}."
        )
    in_one_process = find_world(os.environ).size == 1
    was_in_one_process = settings.get("strategy") not in ("horovod", "mpi")
    num_examples = settings["replica_batch_size"] * settings["num_replicas"] * config.accumulation_steps
    return replace(
        config,
        data=data or config.data,
        strategy=settings["strategy"] if in_one_process == was_in_one_process else "auto",
        batch_size=None,
        global_batch_size=num_examples,
        skip_nonfinite=max(1, config.skip_nonfinite),  # a step that is not finite changes no weight
    )


def _start(run: Path, step: int, data_digest: str) -> Checkpoint | None:
    """Return the newest usable checkpoint before a step, or None for the initial weights."""
    settings, checkpoints = read_settings(run), list_checkpoints(run / CHECKPOINTS_NAME)
    if settings.get("data_digest") != data_digest:
        raise CheckpointError(f"{run} was trained on other data. Name that data with --data.")
    for path in reversed([path for path in checkpoints if step_of(path) < step]):
        try:
            return load_own_checkpoint(path)
        except CheckpointError as error:
            _LOG.warning("%s Trying the checkpoint before it.", error)
    if settings.get("resume", "auto") not in ("auto", "never"):
        raise CheckpointError(f"{run} began from another run, and has no checkpoint before step {step}.")
    _LOG.warning("%s has no checkpoint before step %d: training starts from the initial weights.", run, step)
    return None


def _check_batch(setup: RunSetup) -> None:
    num_replicas, config = setup.distribution.num_replicas, setup.config
    num_examples = setup.batch_size * num_replicas * config.accumulation_steps
    if num_examples != config.global_batch_size:
        raise ConfigurationError(
            f"A step of this run has {config.global_batch_size} examples, which {num_replicas} replicas cannot share "
            "equally. Start the replay on as many processes as the run had."
        )


class _Replay:
    """The steps of a run again.

    Args:
        setup: the run.
        stop: whether this process received a request to stop.
        at_step: receives each global step.
    """

    def __init__(self, setup: RunSetup, stop: StopRequest, at_step: Callable[[int], None]) -> None:
        self._setup = setup
        self._at_step = at_step
        self._flags = StepFlags(setup.distribution.group, stop, global_step=setup.progress.global_step)
        self._steps = self._flags.around_steps(compile_steps(setup).train)
        self._outcomes: list[Sums | NotFinite] = []

    def figures(self, step: int) -> dict[str, Any]:
        """Train up to a step, and return its figures; see `replay_step`."""
        setup = self._setup
        progress = self._train(setup.progress, step - 1)
        if setup.epoch_plan(progress.position).num_steps == 0:
            progress = progress.after_epoch()
        after = self._train(progress, step)
        if after.global_step < step:
            raise ConfigurationError(f"--step is {step}, but the run has only {after.global_step} steps.")
        last = self._outcomes[-1]
        is_finite = not isinstance(last, NotFinite)
        found = None if not isinstance(last, NotFinite) else f"{last.what}{where_of(setup, last.devices)}"
        metrics = {} if isinstance(last, NotFinite) else setup.metrics_of(last)
        return {
            "step": step,
            "epoch": after.epoch + 1,
            "from": str(setup.restored.path) if setup.restored else "the initial weights",
            "num_replicas": setup.distribution.num_replicas,
            "finite": is_finite,
            "found": found,
            **json_scalar(metrics),
            "digest": StateCheck(setup).digest(step),
            "weights_sha256": setup.model_state.weights_digest(),
            "examples": examples_of(setup, progress, ()).tolist(),
        }

    def _train(self, progress: Progress, last: int) -> Progress:
        """Train from `progress` to a global step, or to the end of the run."""
        if progress.global_step >= last:
            return progress

        def end(event: StepEvent) -> Decision:
            self._at_step(event.progress.global_step)
            is_last = event.progress.global_step >= last
            return max(self._flags.action(event), Decision.STOP if is_last else Decision.GO_ON)

        loop = TrainingLoop(
            num_epochs=self._setup.config.epochs,
            open_epoch=partial(open_epoch, self._setup, self._flags),
            train_steps=self._train_steps,
            evaluate=dict,
            metrics_of=self._setup.metrics_of,
            after_step=[end],
            steps_per_execution=self._setup.config.steps_per_execution,
            max_steps=last,
            skip=lambda bad, progress: None,
        )
        progress, _ = run_epochs(loop, progress)
        if self._flags.stop_is_agreed() and progress.global_step < last:
            raise StopRequested(f"A signal ended the replay after step {progress.global_step}.", reporting_rank=0)
        return progress

    def _train_steps(self, steps: list[list[Batch]]) -> list[Sums | NotFinite]:
        self._outcomes = list(self._steps(steps))
        return self._outcomes
