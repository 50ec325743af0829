"""The liveness probe as a command, and the start of a process that has just begun."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from distrain.reporting.boot_clock import boot_clock, process_began


def write_status(run: Path, time: float) -> None:
    (run / "status.json").write_text(json.dumps({"state": "training", "step": 12, "epoch": 2, "time": time}))


def probe(run: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "importtime", "-m", "distrain", "alive", "--run", str(run), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_probe_by_its_exit_code(tmp_path):
    write_status(tmp_path, time=time.time() - 20)
    alive, dead, wrong = (probe(tmp_path, "--within", within) for within in ("300", "10", "-1"))
    assert (alive.returncode, dead.returncode, wrong.returncode) == (0, 5, 2)
    assert alive.stdout.startswith(f"{tmp_path} is alive")
    assert "distrain: error" in dead.stderr.splitlines()[-1]
    for heavy in ("tensorflow", "numpy", "rich", "keras"):
        assert f" {heavy}\n" not in alive.stderr, "a probe runs every few seconds"


def test_the_probe_knows_when_the_machine_or_container_started(tmp_path):
    write_status(tmp_path, time=time.time() - boot_clock() + process_began(Path("/proc/1/stat")) - 1)
    assert "only the status of an earlier attempt" in probe(tmp_path, "--within", "1e9").stderr


def test_a_process_began_when_it_was_started():
    program = (
        "import time; time.sleep(0.3); from distrain.reporting.boot_clock import process_began; print(process_began())"
    )
    before = boot_clock()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert before - 0.05 <= float(done.stdout) <= boot_clock() - 0.3  # clock ticks of 10 ms
