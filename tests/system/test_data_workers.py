"""A run with data workers trains the same weights, ends cleanly however it ends, and leaves no worker behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ENVIRONMENT
from marked_processes import MARK, new_mark, workers_of
from preloaded import preloaded_python
from waiting import wait_until

PROGRAM = Path(__file__).parent / "programs" / "fit_by_workers.py"
HARNESS = Path(__file__).parents[1] / "harness"


@pytest.fixture(autouse=True)
def _harness_is_importable(monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", f"{HARNESS}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}")


def trained(*arguments):
    """Run the program to its end."""
    command = [*preloaded_python(), str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False)


def test_weights_and_figures_are_those_without_workers(tmp_path):
    done = trained(tmp_path / "run", "0,2", 2)
    assert done.returncode == 0, done.stderr
    without, with_workers = done.stdout.splitlines()
    assert without == with_workers


def test_a_script_that_trains_as_it_is_imported_is_refused(tmp_path):
    done = trained(tmp_path / "run", "unguarded")
    assert done.returncode == 2
    assert "fit_by_workers.py calls distrain.fit while a data worker imports the script. Put the call" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        ("interrupt", 42, "Stopped by SIGINT"),
        ("kill a worker", 5, "data worker 2 of 2 was killed by SIGKILL while it read"),
        ("kill the run", -signal.SIGKILL, ""),
    ],
)
def test_no_worker_outlives_its_run(tmp_path, end, code, words):
    metrics = tmp_path / "run-2" / "metrics.jsonl"
    python = [sys.executable] if end == "kill the run" else preloaded_python()  # here workers lose their parent
    mark = new_mark()
    with subprocess.Popen(
        [*python, str(PROGRAM), str(tmp_path / "run"), "2", "100000"],
        env={**ENVIRONMENT, MARK: mark},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as job:
        try:
            wait_until(lambda: metrics.exists() and '"step"' in metrics.read_text(), 120)
            workers = workers_of(mark, "distrain.data.workers.main")
            assert len(workers) == 2
            (run,) = {int(fields_of(worker)[1]) for worker in workers}  # their parent
            assert not any("tensorflow" in Path("/proc", str(worker), "maps").read_text() for worker in workers)
            if end == "interrupt":
                os.killpg(run, signal.SIGINT)  # as a terminal does
            elif end == "kill a worker":
                os.kill(workers[1], signal.SIGKILL)
            else:  # while map= does not return, for which the other worker may wait
                (tmp_path / "run-stall").touch()
                wait_until(lambda: any((tmp_path / f"run-stall-{worker}").exists() for worker in workers))
                assert run == job.pid
                os.kill(run, signal.SIGKILL)
            _, stderr = job.communicate(timeout=60)
        finally:
            job.kill()
    assert job.returncode == code, stderr
    assert words in stderr
    assert "Traceback" not in stderr
    wait_until(lambda: not any(map(lives, workers)), 10)


def fields_of(pid: int) -> list[str]:
    """State, parent and further fields of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def lives(pid: int) -> bool:
    try:
        return fields_of(pid)[0] != "Z"
    except OSError:
        return False
