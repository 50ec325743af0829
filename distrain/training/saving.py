"""What a checkpoint of a run holds.

Decides: the content of a checkpoint of a run, which checkpoints are kept, that no step is saved twice. Never: whether
training goes on.

    saver = Saver(setup, early_stopping, callbacks, limits, report)
    TrainingLoop(..., after_step=[every_steps(100, saver.after_step)], after_epoch=[early_stopping, saver.after_epoch])
"""

from __future__ import annotations

import time
from pathlib import Path

from distrain.file_names import CHECKPOINTS_NAME, MANIFEST_NAME, METRICS_NAME
from distrain.files import describe
from distrain.fingerprints import GrowingFile
from distrain.reporting.reporter import Reporter
from distrain.reporting.write_warning import WriteWarning
from distrain.runs.checkpoint import checkpoint_path, list_checkpoints, retain_checkpoints, save_checkpoint
from distrain.runs.disk_room import check_room, required_write
from distrain.runs.lock import check_held
from distrain.runs.manifest import record_growth
from distrain.runs.progress import Progress, progress_arrays, progress_state
from distrain.training.early_stopping import EarlyStopping
from distrain.training.events import Decision, StepEvent
from distrain.training.keras_callbacks import KerasCallbacks
from distrain.training.limits import Limits
from distrain.training.setup import RunSetup
from distrain.training.state_check import StateCheck


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
            CheckpointError: the checkpoint cannot be written, or the run directory was removed or taken over; all
                earlier checkpoints stay whole.
        """
        if progress is self._saved:
            return
        self._saved = progress
        checked = self.check.arrays(progress.global_step)
        if not self._setup.distribution.group.is_chief:
            return
        started = time.perf_counter()
        config, model_state = self._setup.config, self._setup.model_state
        checkpoints = config.run / CHECKPOINTS_NAME
        best_step = self._early_stopping.best_step
        callbacks, callback_arrays = self._callbacks.state()
        arrays = {**checked, **progress_arrays(progress), **callback_arrays}
        state = {
            **progress_state(progress),
            **model_state.layout(),
            "early_stopping": self._early_stopping.state(),
            "callbacks": callbacks,
            "description": self._setup.description,
            **({"architecture": self._setup.architecture} if self._setup.architecture else {}),
            "finished": finished,
            "run_seconds": self._limits.seconds(),
            "data_digest": self._setup.job.data_digest,
        }
        check_held(config.run)
        size = sum(array.nbytes for array in arrays.values())
        with required_write(checkpoint_path(checkpoints, progress.global_step), run=config.run, num_bytes=size):
            path = save_checkpoint(checkpoints, progress.global_step, arrays, state)
        self._remove_outdated(checkpoints, best_step)
        self._report.checkpoint(
            epoch=epoch + 1,
            step=progress.global_step,
            path=path,
            seconds=time.perf_counter() - started,
            best=best_step == progress.global_step,
        )
        self._renew_manifest()

    def _renew_manifest(self) -> None:
        try:
            record_growth(self._setup.config.run, self._log)
        except OSError as error:
            self._warn_of_manifest(describe(error))

    def _remove_outdated(self, checkpoints: Path, best_step: int | None) -> None:
        try:
            retain_checkpoints(checkpoints, keep=self._setup.config.keep, best_step=best_step)
        except OSError as error:
            self._warn(describe(error))
