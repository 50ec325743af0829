"""What is shown and written while a run goes on: progress, status, `metrics.jsonl`, TensorBoard, `summary.json`.

Decides: how often a step is shown and logged, and how a line looks. Never: anything about training; no value
that the loop uses comes from here. Only the chief reports: other ranks hold a `Reporter`, which does nothing.

    >>> import tempfile
    >>> with RunReporter(Path(tempfile.mkdtemp()), num_epochs=1, tensorboard=False) as reporter:
    ...     reporter.step(epoch=1, step=1, steps_per_epoch=1, num_examples=64, logs=lambda: {"loss": 0.5})
    ...     reporter.epoch(epoch=1, step=1, num_examples=64, seconds=2.0, logs={"loss": 0.5})
    epoch 1/1  loss 0.5000  32 samples/s  2.0 s

Epochs are counted from 1; `step` is the number of steps trained so far, over all epochs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console

from distrain.files import write_json
from distrain.reporting.metrics_log import MetricsLog, plain
from distrain.reporting.progress_bar import Mark, ProgressBar
from distrain.reporting.status import StatusFile
from distrain.reporting.terminal import open_console

LOG_SECONDS = 1.0  # a step is logged at most this often: a week of training is some 90 MB
SHOW_SECONDS = 0.1  # the bar moves at most this often: faster is not seen

Values = Mapping[str, float]


class Reporter:
    """Reports nothing: what ranks other than the chief hold. `RunReporter` is the one that speaks."""

    def note(self, message: str) -> None:
        """Say one line of plain text to whoever is watching; it is not logged."""

    def step(
        self, *, epoch: int, step: int, steps_per_epoch: int, num_examples: int, logs: Callable[[], Values]
    ) -> None:
        """Report one trained step; cheap enough to be called at each.

        Args:
            epoch: the epoch it belongs to, from 1.
            step: steps trained so far, this one included, over all epochs.
            steps_per_epoch: steps in an epoch.
            num_examples: examples of this step, over all replicas.
            logs: gives the values to show (`{"loss": ..., "accuracy": ...}`). Called only when they are due
                to be shown or logged, as fetching them makes the loop wait for the device.
        """

    def epoch(self, *, epoch: int, step: int, num_examples: int, seconds: float, logs: Values) -> None:
        """Report a finished epoch.

        Args:
            epoch: the epoch, from 1.
            step: steps trained so far.
            num_examples: examples trained on in this epoch (by this process if it resumed within the epoch).
            seconds: time that their training took, evaluation not included.
            logs: `loss`, `accuracy`, ..., and `val_loss`, `val_accuracy`, ... where the epoch was evaluated.
        """

    def evaluating(self, *, step: int, num_steps: int) -> None:
        """Report one step of an evaluation, from 1, of how many; cheap enough to be called at each."""

    def evaluate(self, *, epoch: int, step: int, seconds: float, logs: Values) -> None:
        """Report an evaluation; `logs` with the names `val_loss`, `val_accuracy`, ..."""

    def checkpoint(self, *, epoch: int, step: int, path: Path, seconds: float, best: bool = False) -> None:
        """Report a checkpoint that is whole on disk; `best` if it holds the best model so far."""

    def resume(self, *, epoch: int, step: int, path: Path) -> None:
        """Report that training goes on from a checkpoint: before the first step."""

    def stop(self, *, epoch: int, step: int, reason: str) -> None:
        """Report why training ended: one sentence without a full stop ("all epochs are trained")."""

    def finish(self, summary: Mapping[str, object]) -> None:
        """Write `summary.json`."""

    def close(self) -> None:
        """End the bar and close the files; harmless when called twice."""

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class RunReporter(Reporter):
    """Reports a run on the console and into its run directory. For the chief alone.

    A live bar when the console is a terminal, one line an epoch when it is not.
    """

    def __init__(
        self,
        run: Path,
        *,
        num_epochs: int,
        console: Console | None = None,
        tensorboard: bool = True,
        prometheus: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the log for appending.

        Args:
            run: the run directory, which exists.
            num_epochs: the most epochs that may be trained.
            console: where to show progress; default: standard output.
            tensorboard: write scalars to `events/` as well, which imports TensorFlow.
            prometheus: keep the status in this file as well, in Prometheus' text format.
            clock: seconds since 1970.

        Raises:
            OSError: the log cannot be opened.
            ConfigurationError: the status cannot be written.
        """
        self._run = run
        self._num_epochs = num_epochs
        self._console = console or open_console()
        self._clock = clock
        self._log = MetricsLog(run / "metrics.jsonl")
        self._status = StatusFile(run, time=clock(), prometheus=prometheus)
        self._scalars = _Scalars(run / "events") if tensorboard else None
        self._bar = ProgressBar(self._console) if self._console.is_terminal else None
        self._show_at = self._log_at = self._evaluating_at = -math.inf
        self._examples = 0
        self._logged: Mark | None = None
        self._epoch_began: Mark | None = None

    def note(self, message: str) -> None:
        """See `Reporter.note`."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def step(
        self, *, epoch: int, step: int, steps_per_epoch: int, num_examples: int, logs: Callable[[], Values]
    ) -> None:
        """See `Reporter.step`."""
        self._examples += num_examples
        now = self._clock()
        if now < self._show_at or (self._bar is None and now < self._log_at):
            return
        self._show_at = now + SHOW_SECONDS
        here = Mark(now, step, self._examples)
        # A run's first step compiles: rates start behind it.
        self._epoch_began = self._epoch_began or here
        self._logged = self._logged or here
        values = logs()
        if self._bar is not None:
            done = step - (epoch - 1) * steps_per_epoch
            title = f"epoch {epoch}/{self._num_epochs}"
            self._bar.show(title, done, steps_per_epoch, values, self._epoch_began, here)
        if now >= self._log_at:
            rate = here.samples_per_second_since(self._logged)
            self._logged, self._log_at = here, now + LOG_SECONDS
            values = {**values, "samples_per_second": rate}
            self._log.write(
                "step",
                step=step,
                epoch=epoch,
                time=now,
                values={"steps_per_epoch": steps_per_epoch, **values},
            )
            self._write_scalars("step", step, values)
            values = {**values, "steps_per_epoch": steps_per_epoch, "last_step_time": now}
            self._tell(now, "training", epoch, step, values)

    def epoch(self, *, epoch: int, step: int, num_examples: int, seconds: float, logs: Values) -> None:
        """See `Reporter.epoch`."""
        rate = num_examples / seconds if seconds > 0 else math.nan
        values = {**logs, "samples_per_second": rate, "seconds": seconds}
        now = self._clock()
        self._log.write("epoch", step=step, epoch=epoch, time=now, values=values)
        self._write_scalars("epoch", step, values)
        self._restart_rates(step)
        self._tell(now, "training", epoch, step, {**logs, "evaluated_steps": None, "evaluation_steps": None})
        figures = [f"{name} {value:.4f}" for name, value in logs.items()]
        self.note(
            "  ".join([f"epoch {epoch}/{self._num_epochs}", *figures, f"{rate:,.0f} samples/s", f"{seconds:.1f} s"])
        )

    def evaluating(self, *, step: int, num_steps: int) -> None:
        """See `Reporter.evaluating`."""
        now = self._clock()
        if now >= self._evaluating_at:
            self._evaluating_at = now + LOG_SECONDS
            values = {"state": "evaluating", "evaluated_steps": step, "evaluation_steps": num_steps}
            self._status.update(values, time=now)

    def evaluate(self, *, epoch: int, step: int, seconds: float, logs: Values) -> None:
        """See `Reporter.evaluate`."""
        values = {**logs, "seconds": seconds}
        self._log.write("evaluate", step=step, epoch=epoch, time=self._clock(), values=values)
        self._write_scalars("evaluate", step, values)
        self._restart_rates(step)

    def checkpoint(self, *, epoch: int, step: int, path: Path, seconds: float, best: bool = False) -> None:
        """See `Reporter.checkpoint`."""
        where = self._within_run(path)
        now = self._clock()
        self._log.write(
            "checkpoint",
            step=step,
            epoch=epoch,
            time=now,
            values={"path": where, "seconds": seconds, "best": best},
        )
        self._tell(now, "training", epoch, step, {"last_checkpoint": where, "last_checkpoint_time": now})
        self._restart_rates(step)

    def resume(self, *, epoch: int, step: int, path: Path) -> None:
        """See `Reporter.resume`."""
        where = self._within_run(path)
        now = self._clock()
        self._log.write("resume", step=step, epoch=epoch, time=now, values={"path": where})
        self._tell(now, "starting", epoch, step, {"last_checkpoint": where})
        self.note(f"Going on from {where}: epoch {epoch}, step {step:,}.")

    def stop(self, *, epoch: int, step: int, reason: str) -> None:
        """See `Reporter.stop`."""
        now = self._clock()
        self._log.write("stop", step=step, epoch=epoch, time=now, values={"reason": reason})
        self._tell(now, "finishing", epoch, step, {"message": reason})
        self.note(f"Stopped after step {step:,}: {reason}.")

    def finish(self, summary: Mapping[str, object]) -> None:
        """See `Reporter.finish`."""
        write_summary(self._run, summary)
        self._status.update({"state": "finished"}, time=self._clock())

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._status.end(error, time=self._clock())
        self.close()

    def close(self) -> None:
        """See `Reporter.close`."""
        if self._bar is not None:
            self._bar.close()
        if self._scalars is not None:
            self._scalars.close()
        self._log.close()

    def _tell(self, now: float, state: str, epoch: int, step: int, values: Mapping[str, object]) -> None:
        place = {"state": state, "epoch": epoch, "epochs": self._num_epochs, "step": step}
        self._status.update({**values, **place}, time=now)

    def _restart_rates(self, step: int) -> None:
        """Leave the time of what just happened between two steps out of the rates."""
        self._logged = self._epoch_began = Mark(self._clock(), step, self._examples)

    def _within_run(self, path: Path) -> str:
        """`path` as seen from the run directory, so that the log stays true when the directory is moved."""
        return path.relative_to(self._run).as_posix() if path.is_relative_to(self._run) else path.as_posix()

    def _write_scalars(self, prefix: str, step: int, values: Mapping[str, float]) -> None:
        if self._scalars is not None:
            self._scalars.write(prefix, step, values)


class _Scalars:
    """TensorBoard scalars, tagged `epoch/loss` and the like, with the step trained so far as their step.

    TensorFlow without TensorBoard has no `tf.summary.scalar`; what that writes is a tensor with the metadata
    below.
    """

    def __init__(self, folder: Path) -> None:
        import tensorflow as tf

        self._tf = tf
        self._writer = tf.summary.create_file_writer(str(folder))
        self._metadata = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"),
            data_class="DATA_CLASS_SCALAR",
        )

    def write(self, prefix: str, step: int, values: Mapping[str, float]) -> None:
        """Write each value that is a number."""
        with self._writer.as_default(step):
            for name, value in values.items():
                if plain(value) is not None:
                    tensor = self._tf.constant(float(value), self._tf.float32)
                    self._tf.summary.write(f"{prefix}/{name}", tensor, metadata=self._metadata)

    def close(self) -> None:
        """Write out what is buffered and close the file."""
        self._writer.close()


def write_summary(run: Path, summary: Mapping[str, object]) -> None:
    """Write `summary.json`: the old one or the whole new one is there at any time, even through a power cut.

    Args:
        run: the run directory.
        summary: numbers, texts and None by name; a number that is not finite is written as null.
    """
    write_json(run / "summary.json", {name: plain(value) for name, value in summary.items()})
