"""When and what a run saves.

Decides: what a checkpoint of a run holds, which ones stay, that one step is saved once. Never: whether to go on.

    saver = Saver(config, model_state, early_stopping, report, data_digest=job.data_digest, synchronize=...)
    run_epochs(..., after_step=[every_steps(100, saver.after_step)], after_epoch=[early_stopping, saver.after_epoch])
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from distrain.config import TrainConfig
from distrain.errors import CheckpointError
from distrain.reporting.reporter import Reporter
from distrain.runs.checkpoint import retain_checkpoints, save_checkpoint
from distrain.runs.progress import Progress, progress_arrays, progress_state
from distrain.training.actions import EarlyStopping
from distrain.training.events import Decision, StepEvent


class Saver:
    """Saves the state of a run; on processes other than the chief it only takes part in what comes before.

    Args:
        config: run directory, checkpoints kept, epochs.
        model_state: `models.state.ModelState`.
        early_stopping: knows the best step.
        report: told of each checkpoint.
        data_digest: names the data.
        is_chief: whether this process writes.
        synchronize: called before each save, on every process.
    """

    def __init__(
        self,
        config: TrainConfig,
        model_state: Any,
        early_stopping: EarlyStopping,
        report: Reporter,
        *,
        data_digest: str,
        is_chief: bool,
        synchronize: Callable[[], None],
    ) -> None:
        self._config = config
        self._model_state = model_state
        self._early_stopping = early_stopping
        self._report = report
        self._data_digest = data_digest
        self._is_chief = is_chief
        self._synchronize = synchronize
        self._saved: Progress | None = None

    def after_step(self, event: StepEvent) -> None:
        """Save in mid-epoch."""
        self.save(event.progress, epoch=event.epoch)

    def after_epoch(self, event: StepEvent) -> None:
        """Save the end of an epoch, and whether training is complete with it."""
        finished = "epochs" if event.progress.epoch >= self._config.epochs else ""
        if event.decision is Decision.FINISH:
            finished = "early stopping" if self._early_stopping.is_exhausted() else "callback"
        self.save(event.progress, epoch=event.epoch, finished=finished)

    def save(self, progress: Progress, *, epoch: int, finished: str = "") -> None:
        """Save `progress`, unless it was saved just now. All processes must call this.

        Args:
            progress: where training goes on from here.
            epoch: the epoch it belongs to, from 0.
            finished: why training is complete ("epochs", "early stopping", "callback"); empty if it is not.

        Raises:
            CheckpointError: it cannot be written; the checkpoints before it are as they were.
        """
        if progress is self._saved:
            return
        self._saved = progress
        self._synchronize()
        if not self._is_chief:
            return
        began = time.perf_counter()
        checkpoints = self._config.run / "checkpoints"
        best_step = self._early_stopping.best_step
        arrays = {**self._model_state.arrays(), **progress_arrays(progress)}
        state = {
            **progress_state(progress),
            **self._model_state.layout(),
            "early_stopping": self._early_stopping.state(),
            "finished": finished,
            "data_digest": self._data_digest,
        }
        try:
            path = save_checkpoint(checkpoints, progress.global_step, arrays, state)
            retain_checkpoints(checkpoints, keep=self._config.keep, best_step=best_step)
        except OSError as error:
            raise CheckpointError(
                f"the checkpoint of step {progress.global_step} cannot be written: {error}. Mend that and start again: "
                "training goes on from the checkpoint before."
            ) from None
        self._report.checkpoint(
            epoch=epoch + 1,
            step=progress.global_step,
            path=path,
            seconds=time.perf_counter() - began,
            best=best_step == progress.global_step,
        )
