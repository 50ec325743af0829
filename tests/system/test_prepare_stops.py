"""A signal that stops `prepare` leaves the older data set, or none."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from preloaded import preloaded_python
from prepared_data import Result, fails, rows, tree, write_csv

from distrain.data.prepared.dataset_index import open_dataset
from distrain.errors import ConfigurationError, DataError

STOPPED = """
import sys
from rich.console import Console
from distrain.config import PrepareConfig
from distrain.prepare.pipeline import prepare
class Blocking(Console):
    def print(self, *objects, **options):
        if {when!r} in str(objects[0]):
            print("now", flush=True)
            sys.stdin.read()  # until the signal
prepare(PrepareConfig(train={train!r}, test={train!r}, out={out!r}, memory_mib=256), console=Blocking())
"""


@pytest.mark.parametrize(
    ("number", "older"),
    [(signal.SIGTERM, True), (signal.SIGINT, False), (signal.SIGKILL, False), (signal.SIGKILL, True)],
)
def test_a_stopped_prepare_leaves_no_data_set(tmp_path, number, older):
    train, out = write_csv(tmp_path / "a.csv", rows(60)), tmp_path / "out"
    if older:
        Result(train=train, out=out)
    before = tree(out)
    # At this line the training rows are written, and the test rows read.
    script = STOPPED.format(train=str(train), out=str(out), when="writing training rows")
    python = [sys.executable] if number == signal.SIGKILL else preloaded_python()  # which passes on other signals
    process = subprocess.Popen(
        [*python, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline() == b"now\n"
        work = tmp_path / ".out.preparing"
        assert any(work.rglob("train-00000.columns.npy"))
        fails(ConfigurationError, "Another process is preparing", train=train, out=out)
        process.send_signal(number)
        process.wait(timeout=30)
    assert process.returncode not in (0, None)
    assert tree(out) == before
    assert out.exists() == older
    assert work.exists() == (number == signal.SIGKILL)
    for folder in (path for path in tmp_path.rglob("*") if path.is_dir() and path != out):
        with pytest.raises(DataError):
            open_dataset(folder)
    Result(train=train, test=train, out=out)
    assert not work.exists()
