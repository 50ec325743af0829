"""A long command says how far it is, and an interruption ends all of its processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from waiting import wait_until

from distrain.install import progress


def test_lines_say_the_time_and_the_stage(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.3)
    log = tmp_path / "log"
    code = progress.run_step("Building", ["sh", "-c", "echo '[3/9] x'; sleep 1; exit 7"], log=log)
    first, *others = capsys.readouterr().out.splitlines()
    assert (code, first) == (7, "Building ...")
    assert 1 <= len(others) <= 4
    assert all(line.endswith("s, 3 of 9 files compiled") for line in others)
    assert log.read_text() == "[3/9] x\n"
    progress.run_step("Next", ["sleep", "0.5"], log=log)
    assert "files compiled" not in capsys.readouterr().out  # the log of another step


def test_a_signal_ends_the_command_and_all_that_it_started(tmp_path):
    script = "sleep 60 & echo $! > child; wait"
    command = [sys.executable, "-m", "distrain.install.progress", "log", "Working", "sh", "-c", script]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        child = tmp_path / "child"
        wait_until(lambda: child.exists() and child.read_text().strip())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    number = int(child.read_text())
    wait_until(lambda: not _runs(number))


def test_a_failure_shows_the_end_of_the_log(tmp_path):
    command = [sys.executable, "-m", "distrain.install.progress", "log", "Working", "sh", "-c", "echo why; exit 3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "Working ...\n")
    assert "The last lines of log:\nwhy\n" in done.stderr


def _runs(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
