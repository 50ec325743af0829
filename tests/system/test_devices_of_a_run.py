"""The first line of a run names its devices; `--deterministic` works with all operations of the shipped models."""

from __future__ import annotations

import json
import subprocess

import pytest
from preloaded import preloaded_python


@pytest.mark.parametrize(("kind", "devices", "shown"), [("ngram", "cpu", "CPU"), ("sequence", "cpu:2", "2 x CPU")])
def test_a_deterministic_run(kind, devices, shown, text, tmp_path):
    run = [*preloaded_python(), "-m", "distrain", "train", "--data", str(text[kind]), "--run", str(tmp_path / "run")]
    settings = ["--epochs", "1", "--limit-batches", "3", "--devices", devices, "--deterministic"]
    done = subprocess.run([*run, *settings], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    name = "mirrored" if devices == "cpu:2" else "single"
    assert f" per step ({name} on {shown}), " in first
    assert json.loads((tmp_path / "run" / "config.json").read_text())["deterministic"] is True
