"""`distrain train` from start to end, as a straight line.

Decides: the order of the phases of a run. Never: what happens within a phase.

    summary = train(TrainConfig(data="data", run="runs/1"))
    result = run_job(lambda: job, config)

`fit.py` makes a `TrainingJob` from arguments, `job.py` from settings. Every process of a run executes every phase; the
chief alone, rank 0, writes and reports.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distrain.cluster.error_relay import run_on_all_ranks
from distrain.cluster.signals import StopRequest
from distrain.config import TrainConfig
from distrain.data.workers.pool import WorkerPool
from distrain.errors import StopRequested
from distrain.keras_backend.start import require_tensorflow
from distrain.reporting.boot_clock import boot_clock
from distrain.reporting.kubeflow_status import sent_trainer_status
from distrain.reporting.metrics_server import served_metrics
from distrain.reporting.reporter import Reporter, RunReporter
from distrain.training.epochs import make_actions, train_epochs
from distrain.training.jobs.agreement import agree_on_job
from distrain.training.jobs.job import TrainingJob, open_job, refuse_given_model
from distrain.training.ranks import on_ranks
from distrain.training.result import Result, finish_run, result_so_far
from distrain.training.setup import build_setup, compile_steps, open_run_directory

if TYPE_CHECKING:
    from distrain.distribution.base import Distribution

_LOG = logging.getLogger(__name__)


def train(config: TrainConfig, *, stop: StopRequest | None = None, started_at: float | None = None) -> dict[str, Any]:
    """Train on a prepared data set, a folder of arrays or the data of a named function; return the summary.

    Args:
        config: the settings.
        stop: whether this process received a request to stop; default: listen to signals while training lasts.
        started_at: when the command started, on the boot clock; default: now.

    Raises:
        DistrainError: as `run_job`; the message says how to cure the error.
    """
    return run_job(lambda: open_job(config), config, stop=stop, started_at=started_at).summary


def run_job(
    open_job: Callable[[], TrainingJob],
    config: TrainConfig,
    *,
    reporter: Callable[[Path], Reporter] | None = None,
    stop: StopRequest | None = None,
    started_at: float | None = None,
) -> Result:
    """Train a job to its end, together with all other processes of the run.

    Args:
        open_job: returns the job; all ranks raise an error of any rank's `open_job`.
        config: the settings.
        reporter: run directory -> the chief's reporter; default: the console and the run directory.
        stop: whether this process received a request to stop; default: listen to signals while training lasts.
        started_at: when the command started, on the boot clock; default: now.

    Raises:
        StopRequested: a rank received a request to stop; everything is saved.
        DivergenceError: a number is not finite that may not be skipped.
        RankError: the ranks differ, or a rank cannot be joined.
        CheckpointError: the run directory holds another run, or its checkpoints are damaged.
        ConfigurationError, DataError: the settings or the data are wrong.
    """
    started_at = boot_clock() if started_at is None else started_at
    require_tensorflow()

    def run_phases(distribution: Distribution, stop: StopRequest, at_step: Callable[[int], None]) -> Result:
        job = agree_on_job(distribution, open_job, config)
        if job.has_given_model and distribution.num_replicas > 1:
            refuse_given_model()
        with (
            open_run_directory(distribution, config, job) as restored,
            _data_workers(distribution, config, job),
        ):
            setup = build_setup(distribution, config, job, restored)
            steps = compile_steps(setup)
            is_chief = distribution.group.is_chief
            with (
                open_reporter(config.run) if is_chief else Reporter() as report,
                served_metrics(config.run, config.metrics_port if is_chief else None),
                sent_trainer_status(config.run, os.environ if is_chief else {}),
            ):
                actions = make_actions(setup, report, stop=stop, started_at=started_at)
                try:
                    with actions.saver:
                        progress = train_epochs(setup, steps, actions, at_step=at_step)
                except StopRequested as stopped:
                    stopped.result = result_so_far(setup, actions)
                    raise
                return finish_run(setup, actions, progress)

    def open_reporter(run: Path) -> Reporter:
        return reporter(run) if reporter else RunReporter(run, num_epochs=config.epochs, prometheus=config.prometheus)

    return on_ranks(config, run_phases, stop=stop)


@contextmanager
def _data_workers(distribution: Distribution, config: TrainConfig, job: TrainingJob) -> Iterator[None]:
    """Let the job's data workers run, on all ranks."""
    workers = job.workers or WorkerPool(0)
    if config.data_workers and not workers.has_readers and distribution.group.is_chief:
        _LOG.warning("--data-workers has no effect: it serves sources of your own, and arrays that map= changes.")
    with workers:
        run_on_all_ranks(distribution.group, workers.start)
        yield
