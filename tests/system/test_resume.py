"""An interrupted run, started again, ends with the weights of an uninterrupted run."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from commands import ENVIRONMENT, SMALL_MODEL, SYSTEM, run_python
from preloaded import preloaded_python

from distrain.reporting.liveness import sign_of_life
from distrain.reporting.status import read_status

SETTINGS = {"global_batch_size": 64, "epochs": 3, "patience": 0}  # 6 steps an epoch
MOVED_AT = ["step", 8]
# Every occasion meets arrays and prepared text. The code that stops and goes on knows no kind of model.
OCCASIONS = {
    "dropout": [["step", 1], ["step", 3], ["step", 6], ["evaluation", 0], ["epoch", 0], ["step", 8], ["step", 18]],
    "ngram": [["step", 1], ["evaluation", 0], MOVED_AT, ["step", 18]],
    "sequence": [["step", 3], ["step", 6], ["epoch", 0], MOVED_AT],
    "seen": [["step", 1], ["step", 3], ["step", 6], MOVED_AT],
}


def digest(run: Path) -> str:
    return json.loads((run / "summary.json").read_text())["weights_sha256"]


@pytest.fixture(scope="module")
def runs(many_runs, text, tmp_path_factory):
    """A folder of runs at 1 and 2 replicas, interrupted or not; the "moved" runs start at 1 and end at 2 replicas.

    A "moved" run goes on with a copy of the "stopped" run.
    """
    out = tmp_path_factory.mktemp("resume")
    kinds = {name: {"data": text[name], **SMALL_MODEL} for name in ("ngram", "sequence")}
    kinds["sequence"]["blocks"] = 1  # further blocks have the same states, and pooling has none
    kinds |= {"dropout": {"case": "stock_dropout"}, "seen": {"case": "seen"}}
    whole = ("ngram", "sequence", "dropout")

    def settings(kind: str, name: str, devices: str, **more: object) -> dict[str, object]:
        own = {**SETTINGS, "jit_compile": kind == "ngram"}
        return {**kinds[kind], **own, "run": out / kind / name, "devices": devices, **more}

    def single(kind: str) -> list[dict[str, object]]:
        runs = [settings(kind, "whole", "cpu:1")] if kind in whole else []
        copy = {"copy": [MOVED_AT, out / kind / "moved"]} if kind != "dropout" else {}
        return [*runs, settings(kind, "stopped", "cpu:1", stops=OCCASIONS[kind], **copy)]

    def mirrored(kind: str) -> list[dict[str, object]]:
        runs = [settings(kind, "moved", "cpu:2")] * (kind != "dropout")
        if kind in whole:
            stops = [["step", 3], ["evaluation", 1]]
            runs += [settings(kind, "whole-2", "cpu:2"), settings(kind, "stopped-2", "cpu:2", stops=stops)]
        return runs

    for runs_of in (single, mirrored):
        many_runs(runs_of("sequence") + runs_of("seen"), runs_of("ngram") + runs_of("dropout"))
    return out


@pytest.mark.parametrize("kind", ["ngram", "sequence", "dropout"])
@pytest.mark.parametrize(("whole", "stopped"), [("whole", "stopped"), ("whole-2", "stopped-2")])
def test_bitwise_the_same_weights_wherever_it_was_interrupted(kind, whole, stopped, runs):
    assert digest(runs / kind / stopped) == digest(runs / kind / whole)


@pytest.mark.parametrize("kind", ["ngram", "sequence"])
def test_another_number_of_replicas_may_go_on(kind, runs, difference):
    apart = difference(runs / kind / "whole", runs / kind / "moved")
    assert apart.weights <= 1e-5
    assert apart.validation_loss <= 1e-6


@pytest.mark.parametrize("name", ["stopped", "moved"])
def test_each_example_is_seen_once_an_epoch_all_the_same(name, runs, last_weights):
    (each,) = last_weights(runs / "seen" / name).values()
    assert each.shape == (331,)
    model = runs / "seen" / name / "model.keras"
    assert not model.exists(), "Keras cannot save this model, and the run must not fail for that"
    by_last_steps = [(3 - times) / 64 + times / (331 % 64) for times in range(4)]
    apart = np.abs(each[:, None] - by_last_steps)
    assert apart.min(axis=1).max() < 1e-6
    assert np.bincount(apart.argmin(axis=1), minlength=4) @ np.arange(4) == 3 * (331 % 64)


@pytest.mark.parametrize("kind", ["ngram", "sequence"])
def test_figures_do_not_show_the_interruptions(kind, runs):
    epochs = []
    for name in ("whole", "stopped"):
        lines = [json.loads(line) for line in (runs / kind / name / "metrics.jsonl").read_text().splitlines()]
        epochs.append([[line[f] for f in ("epoch", "loss", "accuracy")] for line in lines if line["event"] == "epoch"])
    assert len(epochs[0]) == 3
    assert epochs[0] == epochs[1]


def train(run: Path, data: Path) -> list[str]:
    options = {"global-batch-size": 64, "epochs": 3, "patience": 0, "checkpoint-every": 2, "keep": 3}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return ["-m", "distrain", "train", "--data", str(data), "--run", str(run), "--no-jit", *words]


def finish(run: Path, data: Path) -> subprocess.CompletedProcess[str]:
    return run_python(*train(run, data))


@pytest.fixture(scope="module")
def finished(text, tmp_path_factory):
    run = tmp_path_factory.mktemp("finished") / "run"
    done = finish(run, text["ngram"])
    assert done.returncode == 0, done.stderr
    return run


def send_after_first_checkpoint(number: int, run: Path, data: Path) -> int:
    """Start training, send the process a signal after its first checkpoint, and return its exit code."""
    command = [*preloaded_python(), *train(run, data)]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=SYSTEM, env=ENVIRONMENT, **silent)
    deadline = time.monotonic() + 60
    while not list(run.glob("checkpoints/step-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    assert "is alive: " in sign_of_life(run, within=60)
    process.send_signal(number)
    return process.wait(timeout=60)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 42), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_process_that_is_ended_goes_on_when_started_again(number, code, text, finished, tmp_path):
    run = tmp_path / "run"
    assert send_after_first_checkpoint(number, run, text["ngram"]) == code
    assert not (run / "summary.json").exists()
    assert (read_status(run)["state"] == "stopped") == (code == 42)
    done = finish(run, text["ngram"])
    assert done.returncode == 0, done.stderr
    assert digest(run) == digest(finished)


def test_a_damaged_checkpoint_is_skipped_loudly(text, finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    newest = max((run / "checkpoints").glob("step-*"))
    arrays = newest / "arrays.safetensors"
    content = bytearray(arrays.read_bytes())
    content[-1] ^= 1
    arrays.write_bytes(content)
    done = finish(run, text["ngram"])
    assert done.returncode == 0, done.stderr
    assert f"warning: {arrays} is cut or changed" in done.stderr
    assert digest(run) == digest(finished)


def test_a_finished_run_started_again_stays_as_it_is(text, finished):
    before = {path: path.read_bytes() for path in (finished / "checkpoints").rglob("*") if path.is_file()}
    done = finish(finished, text["ngram"])
    assert done.returncode == 0
    assert "finished already" in done.stdout
    assert {path: path.read_bytes() for path in (finished / "checkpoints").rglob("*") if path.is_file()} == before
