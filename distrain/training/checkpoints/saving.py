"""What a checkpoint of a run holds, and how it is written: in a thread, while training goes on.

Decides: the content of a checkpoint of a run, which checkpoints are kept, that no step is saved twice. Never: whether
training goes on.

    with Saver(setup, early_stopping, callbacks, limits, report) as saver:
        TrainingLoop(..., after_step=[saver.poll, every_steps(100, saver.after_step)], after_epoch=[saver.after_epoch])
        saver.wait()

Training waits while the variables are checked. A thread holds their values and writes them, at a small share of the
processor and with low priority. The values take as much memory as model and optimizer until the checkpoint is on the
disk. Each save waits for the save before, and the end for the last. The thread goes at full speed once somebody waits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from distrain.cluster.placement import own_cores
from distrain.cluster.world import find_world
from distrain.errors import DistrainError
from distrain.file_names import CHECKPOINTS_NAME, MANIFEST_NAME, METRICS_NAME
from distrain.files import describe
from distrain.fingerprints import GrowingFile
from distrain.reporting.reporter import Reporter
from distrain.reporting.write_warning import WriteWarning
from distrain.runs.checkpoint import checkpoint_path, list_checkpoints, retain_checkpoints, save_checkpoint
from distrain.runs.disk_room import check_room, required_write
from distrain.runs.lock import check_held
from distrain.runs.manifest import record_growth, take_back_checkpoint
from distrain.runs.progress import Progress, progress_arrays, progress_state
from distrain.training.callbacks.keras_callbacks import KerasCallbacks
from distrain.training.checkpoints.pace import Pace
from distrain.training.checkpoints.state_check import StateCheck
from distrain.training.loop.early_stopping import EarlyStopping
from distrain.training.loop.events import Decision, StepEvent
from distrain.training.loop.limits import Limits
from distrain.training.run_setup import RunSetup

_LOG = logging.getLogger(__name__)

CORE_SHARE = 0.05  # of each core of this rank: what the thread may use while steps run
THREAD_NICENESS = 10  # steps come first on a processor that they share with the thread


@dataclass(frozen=True)
class _Save:
    """A save in the thread.

    Attributes:
        epoch: the epoch to report, from 1.
        step: global step.
        best: whether the checkpoint holds the best model so far.
        written: folder of the checkpoint and seconds of writing, once both are known.
    """

    epoch: int
    step: int
    best: bool
    written: Future[tuple[Path, float]]


class Saver:
    """Saves the state of a run; only the chief writes, but all ranks synchronize their variables before.

    Args:
        setup: the run.
        early_stopping: knows the best step.
        callbacks: the user's callbacks, whose state is saved.
        limits: knows the time of the run, and whether a limit ended it.
        report: receives each checkpoint.

    Attributes:
        check: checks the variables of the run before they are saved.

    Raises:
        CheckpointError: the disk surely has no room for a checkpoint.
    """

    def __init__(
        self,
        setup: RunSetup,
        early_stopping: EarlyStopping,
        callbacks: KerasCallbacks,
        limits: Limits,
        report: Reporter,
    ) -> None:
        self._setup = setup
        self._early_stopping = early_stopping
        self._callbacks = callbacks
        self._limits = limits
        self._report = report
        self._saved: Progress | None = None
        self._thread = ThreadPoolExecutor(1, "distrain-save", initializer=_lower_priority)
        self._running: _Save | None = None
        self._pace = Pace(CORE_SHARE * own_cores(os.environ, find_world(os.environ)))
        self.check = StateCheck(setup)
        self._warn = WriteWarning("an old checkpoint", action="removed")
        self._warn_of_manifest = WriteWarning(str(setup.config.run / MANIFEST_NAME))
        self._log = GrowingFile(setup.config.run / METRICS_NAME)
        if setup.distribution.group.is_chief and not setup.was_complete:
            # Beside the kept ones: the best, the one that is being written, and `model.keras` of at most that size.
            largest = setup.config.keep + 3
            check_room(
                setup.config.run,
                checkpoint_bytes=setup.model_state.num_bytes(),
                num_checkpoints=max(1, largest - len(list_checkpoints(setup.config.run / CHECKPOINTS_NAME))),
            )

    def after_step(self, event: StepEvent) -> None:
        """Save within an epoch."""
        self.save(event.progress, epoch=event.epoch)

    def after_epoch(self, event: StepEvent) -> None:
        """Save the end of an epoch, and why training is complete if this epoch completes it."""
        finished = "epochs" if event.progress.epoch >= self._setup.config.epochs else ""
        if event.decision is Decision.FINISH:
            is_exhausted = self._early_stopping.is_exhausted()
            finished = "early stopping" if is_exhausted else self._limits.reached or "callback"
        self.save(event.progress, epoch=event.epoch, finished=finished)

    def save(self, progress: Progress, *, epoch: int, finished: str = "") -> None:
        """Save `progress` unless it is already saved. All ranks must call this.

        Args:
            progress: where a resumed run would start.
            epoch: the epoch to report, from 0.
            finished: why training is complete ("epochs", "early stopping", "callback", or the option of a limit); empty
                if training goes on.

        Raises:
            RankError: the variables of ranks or replicas differ.
            DivergenceError: a variable is not finite.
            CheckpointError: the save before this one failed, as the disk is full, or the run directory was removed or
                taken over; all earlier checkpoints stay whole.
        """
        if progress is self._saved:
            return
        self._saved = progress
        self.wait()
        checked = self.check.arrays(progress.global_step)
        if not self._setup.distribution.group.is_chief:
            return
        best_step = self._early_stopping.best_step
        callbacks, callback_arrays = self._callbacks.state()
        copies = {name: np.array(array) for name, array in callback_arrays.items()}
        arrays = {**checked, **progress_arrays(progress), **copies}
        state = {
            **progress_state(progress),
            **self._setup.model_state.layout(),
            "early_stopping": self._early_stopping.state(),
            "callbacks": callbacks,
            "description": self._setup.description,
            **({"architecture": self._setup.architecture} if self._setup.architecture else {}),
            "finished": finished,
            "run_seconds": self._limits.seconds(),
            "data_digest": self._setup.job.data_digest,
        }
        self._record(lambda run: take_back_checkpoint(run, progress.global_step))
        self._pace.calm()
        written = self._thread.submit(self._write, progress.global_step, arrays, deepcopy(state), best_step)
        self._running = _Save(epoch + 1, progress.global_step, best_step == progress.global_step, written)

    def poll(self, event: StepEvent) -> None:
        """Report the save in the thread if it has ended; see `wait`."""
        if self._running is not None and self._running.written.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the save in the thread has ended, and report it.

        Raises:
            CheckpointError: see `save`.
        """
        if self._running is None:
            return
        save, self._running = self._running, None
        self._pace.hurry()
        path, seconds = save.written.result()
        self._report.checkpoint(epoch=save.epoch, step=save.step, path=path, seconds=seconds, best=save.best)
        self._record(lambda run: record_growth(run, self._log, saved=save.step))

    def _record(self, record: Callable[[Path], None]) -> None:
        """Call `record` with the run directory, and warn if the manifest cannot be written."""
        try:
            record(self._setup.config.run)
        except OSError as error:
            self._warn_of_manifest(describe(error))

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._thread:
            if error is None:
                self.wait()
                return
            try:
                self.wait()
            except DistrainError as failed:  # the error that ends the run is told in its place
                _LOG.warning("%s", failed)

    def _write(
        self, step: int, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any], best_step: int | None
    ) -> tuple[Path, float]:
        """Write a checkpoint and remove outdated ones, in the thread."""
        started = time.perf_counter()
        self._pace.begin()
        run = self._setup.config.run
        checkpoints = run / CHECKPOINTS_NAME
        check_held(run)
        size = sum(array.nbytes for array in arrays.values())
        with required_write(checkpoint_path(checkpoints, step), run=run, num_bytes=size):
            path = save_checkpoint(checkpoints, step, arrays, state, self._pace.rest)
        try:
            retain_checkpoints(checkpoints, keep=self._setup.config.keep, best_step=best_step)
        except OSError as error:
            self._warn(describe(error))
        return path, time.perf_counter() - started


def _lower_priority() -> None:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), THREAD_NICENESS)  # Linux: of this thread alone
