"""Standard output that is closed, full, or read by a program that leaves early; standard error that is closed.

`prepare` says that it is unfinished when its reader leaves. Other commands end well.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest
from commands import ENVIRONMENT
from preloaded import preloaded_python
from small_datasets import ragged, write_dataset

TEXT = "".join(f'"{1 + row % 2}","some words of row {row}"\n' for row in range(100))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("output")
    (folder / "train.csv").write_text(TEXT)
    write_dataset(folder / "data", [ragged([9] * 1000)], test=[ragged([9] * 40)])
    return folder


def shell(folder, script):
    """Run a command line with `distrain` in it; buffered output is written at the end of the command, as by default."""
    python = [sys.executable] if "&-" in script else preloaded_python()  # which needs all streams
    command = f"{shlex.join(python)} -m distrain"
    environment = {**ENVIRONMENT, "PYTHONUNBUFFERED": ""}
    script = script.replace("distrain", command, 1)
    return subprocess.run(script, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (0, ["synth", "--out", "more", "--rows", "5"]),
        (2, ["prepare", "--train", "train.csv", "--out", "again"]),
        (0, ["plan", "--data", "data", "--replicas", "2"]),
        (0, ["--help"]),
    ],
)
def test_a_reader_that_leaves(code, arguments, folder):
    """The reading end is closed before anything is written, as `head` does it."""
    read, write = os.pipe()
    os.close(read)
    started = {"cwd": folder, "env": {**ENVIRONMENT, "PYTHONUNBUFFERED": ""}}
    command = [*preloaded_python(), "-m", "distrain", *arguments]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False, **started)
    both = subprocess.run(command, stdout=write, stderr=write, check=False, **started)
    os.close(write)
    assert done.returncode == both.returncode == code
    assert (b"standard output was closed" in done.stderr) == (code == 2)


@pytest.mark.parametrize("output", [">/dev/full", ">&-"])
@pytest.mark.parametrize("command", ["--version", "--help", "prepare --help", "plan --data data --replicas 2"])
def test_output_that_is_the_result_must_be_written(command, output, folder):
    done = shell(folder, f"distrain {command} {output}")
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("distrain: error: standard output cannot be written (")


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("synth --out made --rows 5", ">&-"),
        ("prepare --train train.csv --out prepared", ">/dev/full"),
        ("train --data data --run run --units 4 --epochs 1 --no-jit", ">/dev/full"),
    ],
)
def test_other_output_may_be_lost(command, output, folder):
    done = shell(folder, f"distrain {command} {output}")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("distrain")]
    assert len(lines) == 1
    assert lines[0].startswith("distrain: warning: standard output cannot be written (")
    assert "Traceback" not in done.stderr


def test_closed_streams_change_no_exit_code(folder):
    """The file that a command opens first must not become a standard stream."""
    text = (folder / "train.csv").read_text()
    done = shell(folder, "distrain prepare --train train.csv --out closed <&- >&- 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (folder / "closed" / "dataset.json").is_file()
    assert (folder / "train.csv").read_text() == text
    for errors in ("2>&-", "2>/dev/full"):
        done = shell(folder, f"distrain prepare --train absent.csv --out absent {errors}")
        assert (done.returncode, done.stdout) == (3, "")
