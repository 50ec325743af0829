"""A reader closes standard output early: `prepare` says that it is unfinished, other commands end well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import distrain as package

ROOT = Path(package.__file__).parents[1]
TEXT = "".join(f'"{1 + row % 2}","some words of row {row}"\n' for row in range(100))


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (0, ["synth", "--out", "more", "--rows", "5"]),
        (2, ["prepare", "--train", "train.csv", "--out", "again"]),
        (0, ["plan", "--data", "data", "--replicas", "2"]),
    ],
)
def test_a_reader_that_leaves(code, arguments, tmp_path):
    """The reading end is closed before anything is written, as `head` does it."""
    (tmp_path / "train.csv").write_text(TEXT)
    command = [sys.executable, "-m", "distrain"]
    # Buffered output is written at the end of the command, as by default.
    started = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}}
    if "data" in arguments:
        subprocess.run([*command, "prepare", "--train", "train.csv", "--out", "data"], check=True, **started)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*command, *arguments], stdout=write, stderr=subprocess.PIPE, check=False, **started)
    os.close(write)
    assert done.returncode == code
    assert (b"standard output was closed" in done.stderr) == (code == 2)
