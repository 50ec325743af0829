"""Helpers of the reporting tests: a reporter into memory, a log, a run directory, a strict reader."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from rich.console import Console

from distrain.reporting.metrics_log import MetricsLog
from distrain.reporting.reporter import RunReporter


def read_strictly(path: Path) -> list[dict]:
    """The log as any strict JSON reader sees it."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def reporter_into(
    run: Path, *, clock: Iterator[float] | None = None, width: int = 80, **settings: object
) -> tuple[RunReporter, io.StringIO]:
    shown = io.StringIO()
    console = Console(file=shown, width=width, **settings)
    times, dates = clock or count(), count()
    reporter = RunReporter(
        run, num_epochs=3, console=console, tensorboard=False, clock=lambda: next(times), date=lambda: next(dates)
    )
    return reporter, shown


def write_log(path: Path, *events: tuple) -> None:
    with MetricsLog(path) as log:
        for event, step, epoch, *values in events:
            log.write(event, step=step, epoch=epoch, time=1e9 + step, values=dict(values))


def make_run(run: Path, *, epochs: int = 4, summary: bool = True, **settings: object) -> Path:
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"seed": 0, "strategy": "mirrored", **settings}))
    reporter, _ = reporter_into(run)
    with reporter:
        for epoch in range(1, epochs + 1):
            for step in (10 * epoch - 5, 10 * epoch):
                reporter.step(epoch=epoch, step=step, steps_per_epoch=10, num_examples=8, logs=lambda: {"loss": 0.5})
            losses = {"loss": 1 / epoch, "accuracy": 0.5, "val_loss": abs(epoch - 2.5), "val_accuracy": 0.71}
            reporter.epoch(epoch=epoch, step=10 * epoch, num_examples=80, seconds=1.0, logs=losses)
            reporter.checkpoint(epoch=epoch, step=10 * epoch, path=run / "checkpoints" / "x", seconds=0.0)
        if summary:
            reporter.stop(epoch=epochs, step=10 * epochs, reason="all epochs are trained")
            reporter.finish({"validation_accuracy": 0.8765, "num_replicas": 2, "epochs": epochs})
    return run
