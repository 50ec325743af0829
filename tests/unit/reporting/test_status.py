"""The status file is whole at any time, in both formats, from start to end of a run; readers refuse damage."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import threading
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from distrain.errors import CheckpointError, ConfigurationError, DivergenceError, StopRequested
from distrain.reporting.reporter import RunReporter
from distrain.reporting.status import MAX_BYTES, STATES, StatusFile, prometheus_text, read_status


def reporter_into(run: Path, **settings: object) -> RunReporter:
    times = count(1000)
    console = Console(file=io.StringIO())
    return RunReporter(
        run, num_epochs=3, console=console, tensorboard=False, clock=lambda: float(next(times)), **settings
    )


def test_a_run_from_start_to_finish(tmp_path):
    states = []

    def read(*names: str) -> dict:
        status = read_status(tmp_path)
        states.append(status["state"])
        return {name: status.get(name) for name in names}

    with reporter_into(tmp_path) as reporter:
        read()
        reporter.resume(epoch=1, step=4, path=tmp_path / "checkpoints" / "step-4")
        assert read("step", "last_checkpoint") == {"step": 4, "last_checkpoint": "checkpoints/step-4"}
        for step in (5, 6):
            reporter.step(epoch=1, step=step, steps_per_epoch=6, num_examples=64, logs=lambda: {"loss": 0.5})
        trained = read("step", "epoch", "epochs", "steps_per_epoch", "loss", "last_step_time", "time")
        assert trained.pop("last_step_time") <= trained.pop("time")
        assert trained == {"step": 6, "epoch": 1, "epochs": 3, "steps_per_epoch": 6, "loss": 0.5}
        assert read_status(tmp_path)["samples_per_second"] > 0
        reporter.evaluating(step=2, num_steps=9)
        assert read("evaluated_steps", "evaluation_steps") == {"evaluated_steps": 2, "evaluation_steps": 9}
        reporter.epoch(epoch=1, step=6, num_examples=128, seconds=1.0, logs={"loss": 0.4, "val_loss": 0.3})
        assert read("loss", "val_loss", "evaluated_steps") == {"loss": 0.4, "val_loss": 0.3, "evaluated_steps": None}
        reporter.checkpoint(epoch=1, step=6, path=tmp_path / "checkpoints" / "step-6", seconds=0.1)
        saved = read("last_checkpoint", "last_checkpoint_time", "last_step_time")
        assert saved["last_checkpoint"] == "checkpoints/step-6"
        assert saved["last_checkpoint_time"] > saved["last_step_time"]
        reporter.stop(epoch=1, step=6, reason="all epochs are trained")
        read()
    reporter.finish({"validation_accuracy": 0.9})
    assert read("message", "step") == {"message": "all epochs are trained", "step": 6}
    assert states == [
        "starting",
        "starting",
        "training",
        "evaluating",
        "training",
        "training",
        "finishing",
        "finished",
    ]


@pytest.mark.parametrize(
    ("error", "state"),
    [(StopRequested("SIGTERM"), "stopped"), (DivergenceError("nan"), "failed"), (ZeroDivisionError(), "failed")],
)
def test_the_end_of_a_run_is_recorded(tmp_path, error, state):
    with pytest.raises(type(error)), reporter_into(tmp_path):
        raise error
    status = read_status(tmp_path)
    assert (status["state"], status["message"]) == (state, str(error) or "ZeroDivisionError")


def test_each_step_of_a_long_evaluation_is_a_sign_of_life(tmp_path):
    with reporter_into(tmp_path) as reporter:
        times = []
        for step in range(1, 5):
            reporter.evaluating(step=step, num_steps=4)
            times.append(read_status(tmp_path)["time"])
    assert sorted(set(times)) == times


def test_a_reader_never_sees_half_a_file(tmp_path):
    prometheus = tmp_path / "run.prom"
    status = StatusFile(tmp_path, time=0.0, prometheus=prometheus)
    is_over = threading.Event()
    seen = []

    def read() -> None:
        while not is_over.is_set():
            values = read_status(tmp_path)
            text = prometheus.read_text(encoding="utf-8")
            seen.append((len(values), text.endswith("\n")))

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(50):
        status.update({"state": "training", "step": step, "message": "x" * 20_000}, time=1.0 + step)
    is_over.set()
    reader.join()
    assert len(seen) > 20
    assert {whole for _, whole in seen} == {True}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.prom", "status.json"], "no temporary file remains"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b'{"state": "training"}',
        b'{"state": "training", "time": "now"}',
        b'{"state": "party", "time": 1}',
        b'{"state": ["training"], "time": 1}',
        b"[" * 60_000,
        b'{"state": "training", "time": 1, "message": "' + b"x" * MAX_BYTES + b'"}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_status_is_refused(tmp_path, content):
    (tmp_path / "status.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"status\.json"):
        read_status(tmp_path)


def test_without_a_file_there_is_no_status(tmp_path):
    assert read_status(tmp_path) is None


def test_a_place_that_cannot_be_written_is_found_at_the_start(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nowhere.*cannot be written"):
        StatusFile(tmp_path, time=0.0, prometheus=tmp_path / "nowhere" / "run.prom")


def test_a_full_disk_at_the_start_is_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", refuse)
        status = StatusFile(tmp_path, time=0.0)
    assert ["No space left on device" in message for message in caplog.messages] == [True]
    status.update({"step": 3}, time=1.0)
    assert read_status(tmp_path)["step"] == 3


def test_a_run_directory_that_is_gone_is_not_made_again(tmp_path, caplog):
    run = tmp_path / "run"
    run.mkdir()
    status = StatusFile(run, time=0.0)
    shutil.rmtree(run)
    status.update({"step": 3}, time=1.0)
    assert not run.exists()
    assert caplog.messages == []  # the next checkpoint tells


def test_later_on_training_is_worth_more_than_its_status(tmp_path, caplog):
    folder = tmp_path / "prometheus"
    folder.mkdir()
    status = StatusFile(tmp_path, time=0.0, prometheus=folder / "run.prom")
    (folder / "run.prom").unlink()
    folder.rmdir()
    for step in (1, 2):
        status.update({"step": step}, time=1.0)
    assert len(caplog.messages) == 1
    assert "prometheus" in caplog.messages[0]
    assert read_status(tmp_path)["step"] == 2


# Prometheus' text format, as Prometheus' own client reads it.


def samples(text: str) -> dict[str, list]:
    return {family.name: family.samples for family in text_string_to_metric_families(text)}


def test_prometheus_reads_each_number_as_a_gauge(tmp_path):
    path = tmp_path / "run.prom"
    status = StatusFile(tmp_path, time=1000.0, prometheus=path)
    values = {"state": "evaluating", "step": 7, "loss": 0.25, "last_step_time": 1200.0, "message": "no number"}
    status.update(values, time=1234.5)
    found = samples(path.read_text())
    assert {sample.labels["state"]: sample.value for sample in found.pop("distrain_state")} == {
        state: float(state == "evaluating") for state in STATES
    }
    values = {name: sample.value for name, [sample] in found.items()}
    assert values == {
        "distrain_step": 7.0,
        "distrain_loss": 0.25,
        "distrain_last_step_timestamp_seconds": 1200.0,
        "distrain_alive_timestamp_seconds": 1234.5,
    }
    assert {sample.labels["run"] for [sample] in found.values()} == {str(tmp_path)}


@given(
    run=st.text(),
    metrics=st.dictionaries(st.text(min_size=1), st.floats(allow_nan=False, allow_infinity=False), max_size=5),
)
def test_prometheus_reads_any_names_of_runs_and_metrics(run, metrics):
    values = json.loads(json.dumps({**metrics, "state": "training", "time": 1.0}))
    found = samples(prometheus_text(values, run=run))
    assert {sample.labels["run"] for family in found.values() for sample in family} == {run}
    assert {sample.value for family in found.values() for sample in family} <= {0.0, 1.0, *metrics.values()}
