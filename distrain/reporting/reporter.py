"""Reports a run while it trains: console, `status.json`, `metrics.jsonl`, TensorBoard, `summary.json`.

Decides: how often a step is shown and logged. Never: anything about training; the loop uses no value from here.
Only the chief reports. Other ranks hold a `Reporter`, which does nothing.

    >>> import tempfile
    >>> with RunReporter(Path(tempfile.mkdtemp()), num_epochs=1, tensorboard=False) as reporter:
    ...     reporter.step(epoch=1, step=1, steps_per_epoch=1, num_examples=64, logs=lambda: {"loss": 0.5})
    ...     reporter.epoch(epoch=1, step=1, num_examples=64, seconds=2.0, logs={"loss": 0.5})
    epoch 1/1  loss 0.5000  32 samples/s  2.0 s

Epochs are counted from 1. `step` is the number of steps trained so far, over all epochs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console

from distrain.file_names import EVENTS_NAME, METRICS_NAME, SUMMARY_NAME
from distrain.files import write_json
from distrain.reporting.boot_clock import boot_clock
from distrain.reporting.console import epoch_line, open_console, print_line
from distrain.reporting.metrics_log import MetricsLog, json_scalar
from distrain.reporting.progress_bar import ProgressBar, RatePoint
from distrain.reporting.status import StatusFile
from distrain.reporting.tensorboard import TensorBoardScalars

LOG_SECONDS = 1.0  # least time between two logged steps: a week of training then logs some 90 MB
SHOW_SECONDS = 0.1  # least time between two movements of the bar: nobody sees faster ones

Metrics = Mapping[str, Any]  # a number, or a list of numbers such as one per class


class Reporter:
    """Reports nothing; ranks other than the chief hold a `Reporter`, and the chief holds a `RunReporter`."""

    def note(self, message: str) -> None:
        """Show one line of plain text on the console; the line is not logged."""

    def step(
        self, *, epoch: int, step: int, steps_per_epoch: int, num_examples: int, logs: Callable[[], Metrics]
    ) -> None:
        """Report one trained step; a call costs little, so every step may call it.

        Args:
            epoch: Epoch of the step, from 1.
            step: Steps trained so far over all epochs, this step included.
            steps_per_epoch: Steps in an epoch.
            num_examples: Examples of this step, over all replicas.
            logs: Returns loss and metrics so far and the learning rate, by name. Called only when a step is shown
                or logged, because fetching the values makes the loop wait for the device.
        """

    def epoch(
        self, *, epoch: int, step: int, num_examples: int, seconds: float, logs: Metrics, best: bool = False
    ) -> None:
        """Report a finished epoch.

        Args:
            epoch: The epoch, from 1.
            step: Steps trained so far over all epochs.
            num_examples: Examples that this process trained in the epoch; fewer than all if it resumed in the epoch.
            seconds: Time of training these examples, without the evaluation.
            logs: Loss and metrics by name, `val_loss`, `val_accuracy`, ... if the epoch was evaluated, and the
                learning rate.
            best: Whether this is the best epoch so far.
        """

    def evaluating(self, *, step: int, num_steps: int) -> None:
        """Report step `step`, from 1, of `num_steps` of an evaluation; every step may call it."""

    def evaluate(self, *, epoch: int, step: int, seconds: float, logs: Metrics) -> None:
        """Report an evaluation; `logs` holds `val_loss`, `val_accuracy`, ..."""

    def checkpoint(self, *, epoch: int, step: int, path: Path, seconds: float, best: bool = False) -> None:
        """Report a checkpoint that is whole on disk; `best` says that it holds the best model so far."""

    def skip(self, *, epoch: int, step: int, reason: str, skipped: int, allowed: int) -> None:
        """Report a step that changed no weight.

        Args:
            epoch: Epoch of the step, from 1.
            step: The step, counted over all epochs.
            reason: What was not finite, and where, as a sentence without a full stop.
            skipped: Steps that the run has skipped so far, this step included.
            allowed: Steps that the run may skip.
        """

    def resume(self, *, epoch: int, step: int, path: Path) -> None:
        """Report, before the first step, that training resumes from a checkpoint."""

    def stop(self, *, epoch: int, step: int, reason: str) -> None:
        """Report why training ended, in one sentence without a full stop ("all epochs are trained")."""

    def finish(self, summary: Mapping[str, object]) -> None:
        """Write `summary.json`."""

    def close(self) -> None:
        """Remove the bar and close the files; a second call does nothing."""

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class RunReporter(Reporter):
    """Reports a run on the console and in its run directory; for the chief alone.

    A terminal shows a live bar. Any other output gets one line per epoch.
    """

    def __init__(
        self,
        run: Path,
        *,
        num_epochs: int,
        console: Console | None = None,
        tensorboard: bool = True,
        prometheus: Path | None = None,
        clock: Callable[[], float] = boot_clock,
        date: Callable[[], float] = time.time,
    ) -> None:
        """Open the log for appending.

        Args:
            run: Existing run directory.
            num_epochs: Most epochs that the run may train.
            console: Console for progress; default: standard output.
            tensorboard: Write scalars to `events/` as well, which imports TensorFlow.
            prometheus: File that repeats the status in Prometheus' text format, or None.
            clock: Measures intervals in seconds; a change of the date must not touch it.
            date: Returns seconds since 1970, for the events in files.

        Raises:
            ConfigurationError: the status cannot be written, for another reason than a full or failing disk.
        """
        self._run = run
        self._num_epochs = num_epochs
        self._console = console or open_console()
        self._clock, self._date = clock, date
        self._log = MetricsLog(run / METRICS_NAME)
        self._status = StatusFile(run, time=date(), prometheus=prometheus)
        self._scalars = TensorBoardScalars(run / EVENTS_NAME) if tensorboard else None
        self._bar = ProgressBar(self._console) if self._console.is_terminal else None
        self._show_at = self._log_at = self._evaluation_log_at = -math.inf
        self._examples = 0
        self._logged: RatePoint | None = None
        self._epoch_began: RatePoint | None = None

    def note(self, message: str) -> None:
        """See `Reporter.note`."""
        print_line(self._console, message)

    def step(
        self, *, epoch: int, step: int, steps_per_epoch: int, num_examples: int, logs: Callable[[], Metrics]
    ) -> None:
        """See `Reporter.step`."""
        self._examples += num_examples
        now = self._clock()
        if now < self._show_at or (self._bar is None and now < self._log_at):
            return
        self._show_at = now + SHOW_SECONDS
        point = RatePoint(now, step, self._examples)
        # The first step of a run compiles the model, so rates start after it.
        self._epoch_began = self._epoch_began or point
        self._logged = self._logged or point
        values = logs()
        if self._bar is not None:
            done = step - (epoch - 1) * steps_per_epoch
            title = f"epoch {epoch}/{self._num_epochs}"
            self._bar.show(title, done, steps_per_epoch, values, self._epoch_began, point)
        if now >= self._log_at:
            date = self._date()
            rate = point.samples_per_second_since(self._logged)
            self._logged, self._log_at = point, now + LOG_SECONDS
            values = {**values, "samples_per_second": rate}
            self._log.write(
                "step",
                step=step,
                epoch=epoch,
                time=date,
                values={"steps_per_epoch": steps_per_epoch, **values},
            )
            self._write_scalars("step", step, values)
            values = {**values, "steps_per_epoch": steps_per_epoch, "last_step_time": date}
            self._update_status(date, "training", epoch, step, values)

    def epoch(
        self, *, epoch: int, step: int, num_examples: int, seconds: float, logs: Metrics, best: bool = False
    ) -> None:
        """See `Reporter.epoch`."""
        rate = num_examples / seconds if seconds > 0 else math.nan
        values = {**logs, "samples_per_second": rate, "seconds": seconds}
        date = self._date()
        self._log.write("epoch", step=step, epoch=epoch, time=date, values={**values, "best": best})
        self._write_scalars("epoch", step, values)
        self._restart_rates(step)
        self._update_status(date, "training", epoch, step, {**logs, "evaluated_steps": None, "evaluation_steps": None})
        self.note(epoch_line(epoch, self._num_epochs, logs, samples_per_second=rate, seconds=seconds))

    def evaluating(self, *, step: int, num_steps: int) -> None:
        """See `Reporter.evaluating`."""
        now = self._clock()
        if now >= self._evaluation_log_at:
            self._evaluation_log_at = now + LOG_SECONDS
            values = {"state": "evaluating", "evaluated_steps": step, "evaluation_steps": num_steps}
            self._status.update(values, time=self._date())

    def evaluate(self, *, epoch: int, step: int, seconds: float, logs: Metrics) -> None:
        """See `Reporter.evaluate`."""
        values = {**logs, "seconds": seconds}
        self._log.write("evaluate", step=step, epoch=epoch, time=self._date(), values=values)
        self._write_scalars("evaluate", step, values)
        self._restart_rates(step)

    def checkpoint(self, *, epoch: int, step: int, path: Path, seconds: float, best: bool = False) -> None:
        """See `Reporter.checkpoint`."""
        where = self._within_run(path)
        date = self._date()
        self._log.write(
            "checkpoint",
            step=step,
            epoch=epoch,
            time=date,
            values={"path": where, "seconds": seconds, "best": best},
        )
        self._log.sync()
        self._status.update({"last_checkpoint": where, "last_checkpoint_time": date}, time=date)

    def skip(self, *, epoch: int, step: int, reason: str, skipped: int, allowed: int) -> None:
        """See `Reporter.skip`."""
        values = {"reason": reason, "skipped_steps": skipped}
        self._log.write("skip", step=step, epoch=epoch, time=self._date(), values=values)
        self.note(f"Step {step:,} is skipped, {skipped} of at most {allowed}: {reason}.")

    def resume(self, *, epoch: int, step: int, path: Path) -> None:
        """See `Reporter.resume`."""
        where = self._within_run(path)
        date = self._date()
        self._log.write("resume", step=step, epoch=epoch, time=date, values={"path": where})
        self._update_status(date, "starting", epoch, step, {"last_checkpoint": where})
        self.note(f"Going on from {where}: epoch {epoch}, step {step:,}.")

    def stop(self, *, epoch: int, step: int, reason: str) -> None:
        """See `Reporter.stop`."""
        date = self._date()
        self._log.write("stop", step=step, epoch=epoch, time=date, values={"reason": reason})
        self._log.sync()
        self._update_status(date, "finishing", epoch, step, {"message": reason})
        self.note(f"Stopped after step {step:,}: {reason}.")

    def finish(self, summary: Mapping[str, object]) -> None:
        """See `Reporter.finish`."""
        self._log.sync()
        write_summary(self._run, summary)
        self._status.update({"state": "finished"}, time=self._date())

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._status.end(error, time=self._date())
        self.close()

    def close(self) -> None:
        """See `Reporter.close`."""
        if self._bar is not None:
            self._bar.close()
        if self._scalars is not None:
            self._scalars.close()
        self._log.close()

    def _update_status(self, date: float, state: str, epoch: int, step: int, values: Mapping[str, object]) -> None:
        progress = {"state": state, "epoch": epoch, "epochs": self._num_epochs, "step": step}
        self._status.update({**values, **progress}, time=date)

    def _restart_rates(self, step: int) -> None:
        """Exclude the time since the last step, which went to an evaluation, from the rates."""
        self._logged = self._epoch_began = RatePoint(self._clock(), step, self._examples)

    def _within_run(self, path: Path) -> str:
        """Return `path` relative to the run directory, so that the log stays true when the directory moves."""
        return path.relative_to(self._run).as_posix() if path.is_relative_to(self._run) else path.as_posix()

    def _write_scalars(self, prefix: str, step: int, values: Mapping[str, float]) -> None:
        if self._scalars is not None:
            self._scalars.write(prefix, step, values)


def write_summary(run: Path, summary: Mapping[str, object]) -> None:
    """Replace `summary.json` in a run directory; a number that is not finite is written as null."""
    write_json(run / SUMMARY_NAME, {name: json_scalar(value) for name, value in summary.items()})
