"""A run is reported on the console, in the log and in the summary, by the chief alone."""

from __future__ import annotations

import io
import json
import re
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from reported_runs import read_strictly, reporter_into
from rich.console import Console

from distrain.reporting.reporter import Reporter, RunReporter, write_summary


def test_one_line_an_epoch_when_nobody_watches(tmp_path):
    reporter, shown = reporter_into(tmp_path)
    logs = {"loss": 0.12341, "accuracy": 0.965, "val_loss": 0.321, "val_accuracy": 0.876}
    with reporter:
        for step in range(1, 6):
            reporter.step(epoch=3, step=step, steps_per_epoch=5, num_examples=8, logs=lambda: {"loss": 1.0})
        reporter.epoch(epoch=3, step=5, num_examples=86_591, seconds=2.1, logs=logs)
    assert shown.getvalue() == (
        "epoch 3/3  loss 0.1234  accuracy 0.9650  val_loss 0.3210  val_accuracy 0.8760  41,234 samples/s  2.1 s\n"
    )


def test_steps_are_logged_once_a_second_with_the_rate_between(tmp_path):
    fetched = []

    def logs() -> dict[str, float]:
        fetched.append(1)
        return {"loss": 0.5}

    reporter, _ = reporter_into(tmp_path, clock=(i / 64 for i in count()))
    with reporter:
        for step in range(1, 64 * 5 + 1):
            reporter.step(epoch=1, step=step, steps_per_epoch=1000, num_examples=100, logs=logs)
    events = read_strictly(tmp_path / "metrics.jsonl")
    assert [event["step"] for event in events] == [1, 65, 129, 193, 257]
    assert [event["samples_per_second"] for event in events] == [None, 6400, 6400, 6400, 6400]
    assert len(fetched) == len(events), "values are fetched from the device only when they are written"


def test_time_between_epochs_is_no_part_of_the_rate(tmp_path):
    now = [0.0]
    reporter = RunReporter(
        tmp_path, num_epochs=2, console=Console(file=io.StringIO()), tensorboard=False, clock=lambda: now[0]
    )
    with reporter:
        for step in range(1, 5):
            reporter.step(epoch=1, step=step, steps_per_epoch=4, num_examples=10, logs=dict)
            now[0] += 2
        now[0] += 1000  # evaluation
        reporter.epoch(epoch=1, step=4, num_examples=40, seconds=8.0, logs={})
        now[0] += 2
        reporter.step(epoch=2, step=5, steps_per_epoch=4, num_examples=10, logs=dict)
    assert read_strictly(tmp_path / "metrics.jsonl")[-1]["samples_per_second"] == 5


def test_a_terminal_gets_a_bar_that_fits_and_vanishes(tmp_path):
    reporter, shown = reporter_into(tmp_path, force_terminal=True)
    with reporter:
        for step in range(1, 51):
            reporter.step(
                epoch=1,
                step=step * 40_000,
                steps_per_epoch=2_500_000,
                num_examples=64,
                logs=lambda: {"loss": 0.5, "accuracy": 0.25, "top_5_accuracy": 0.75},
            )
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.getvalue())
    lines = [line for line in re.split(r"[\r\n]+", plain) if line.strip()]
    assert any("2,000,000/2,500,000" in line and "loss 0.5000" in line for line in lines)
    assert max(map(len, lines)) <= 80
    assert not any("\N{HORIZONTAL ELLIPSIS}" in line for line in lines), "what does not fit is left out whole"
    assert shown.getvalue().rstrip().endswith("\x1b[2K"), "the last thing done is to clear the line"


def test_messages_are_not_read_as_markup(tmp_path):
    reporter, shown = reporter_into(tmp_path)
    with reporter:
        reporter.note("run [bold]x[/nothing] " + "long " * 30)
    assert shown.getvalue() == "run [bold]x[/nothing] " + "long " * 30 + "\n"


def test_the_log_names_checkpoints_within_the_run(tmp_path):
    reporter, shown = reporter_into(tmp_path)
    path = tmp_path / "checkpoints" / "step-00000005"
    with reporter:
        reporter.checkpoint(epoch=1, step=5, path=path, seconds=0.5, best=True)
        reporter.evaluate(epoch=1, step=5, seconds=0.5, logs={"val_loss": 1.0})
        reporter.resume(epoch=1, step=5, path=path)
        reporter.stop(epoch=1, step=5, reason="all epochs are trained")
    events = read_strictly(tmp_path / "metrics.jsonl")
    assert [event["event"] for event in events] == ["checkpoint", "evaluate", "resume", "stop"]
    assert events[0]["path"] == events[2]["path"] == "checkpoints/step-00000005"
    assert "step 5: all epochs are trained." in shown.getvalue()


def test_ranks_other_than_the_chief_leave_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with Reporter() as reporter:
        reporter.note("x")
        reporter.step(epoch=1, step=1, steps_per_epoch=1, num_examples=1, logs=lambda: pytest.fail("was fetched"))
        reporter.epoch(epoch=1, step=1, num_examples=1, seconds=1.0, logs={})
        reporter.evaluate(epoch=1, step=1, seconds=1.0, logs={})
        reporter.checkpoint(epoch=1, step=1, path=tmp_path, seconds=1.0)
        reporter.resume(epoch=1, step=1, path=tmp_path)
        reporter.stop(epoch=1, step=1, reason="x")
        reporter.finish({})
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_summary_is_whole_or_the_old_one(tmp_path, monkeypatch):
    write_summary(tmp_path, {"validation_accuracy": np.float32(0.5), "epochs": 2, "validation_loss": float("nan")})
    assert read_strictly_whole(tmp_path) == {"validation_accuracy": 0.5, "epochs": 2, "validation_loss": None}

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_summary(tmp_path, {"epochs": 3})
    assert read_strictly_whole(tmp_path)["epochs"] == 2


def read_strictly_whole(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text(), parse_constant=pytest.fail)
