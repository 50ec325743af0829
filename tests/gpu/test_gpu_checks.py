"""The logic of the GPU checks, without a GPU: what fails stops nothing else, and the report says all."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parent))
import gpu_checks as checks
from tried_machine import Machine

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path, "cpu", 2, time.monotonic() + 60)


def results(machine):
    return {name: result for name, result, _, _ in machine.rows}


def test_a_check_that_fails_stops_no_other(machine):
    machine.check("first", lambda: 1 / 0)
    machine.check("shapes", lambda: "<unknown> | ?\nnext")
    machine.check("hangs", lambda: machine.command("sleep", "60"), seconds=0.6)
    machine.check("exits", lambda: machine.command("sh", "-c", "echo why; exit 3"))
    machine.check("last", lambda: "4 ms")
    failed = dict.fromkeys(("first", "hangs", "exits"), "FAILED")
    assert results(machine) == {**failed, "shapes": "ok", "last": "ok"}
    text = checks.report(machine)
    assert "| first | FAILED | 0 | ZeroDivisionError: division by zero |" in text
    assert "| shapes | ok | 0 | &lt;unknown> / ? next |" in text
    assert "took more than 1 s" in text
    assert "exit code 3: why" in text
    assert "| last | ok | 0 | 4 ms |" in text
    assert "nothing here ran on a GPU" in text
    assert "command `launch/test.sh --gpu --stand-in`." in text


def test_nothing_begins_after_the_end(machine):
    machine.end = time.monotonic()
    machine.check("late", lambda: pytest.fail("began"))
    assert results(machine) == {"late": "NOT RUN"}


@pytest.mark.parametrize(("factor", "is_close"), [(1.0, True), (1.0005, True), (1.01, False)])
def test_weights_are_compared(tmp_path, factor, is_close):
    for name, scale in {"one": 1.0, "other": factor}.items():
        for step in ("step-00000001", "step-00000002"):
            folder = tmp_path / name / "checkpoints" / step
            folder.mkdir(parents=True)
            weights = np.arange(4, dtype=np.float32) * (scale if step.endswith("2") else 7)
            save_file({"model/0000": weights, "optimizer/0000": np.ones(1) * scale}, folder / "arrays.safetensors")
    if is_close:
        assert "at most" in checks.apart(tmp_path / "one", tmp_path / "other")
    else:
        with pytest.raises(AssertionError, match=r"weights differ by 1\.0e-02"):
            checks.apart(tmp_path / "one", tmp_path / "other")


@pytest.mark.parametrize(
    ("own", "is_right"), [([1.0, 0.5], True), ([1.0005, 0.5], True), ([1.0, 0.6], False), ([1.0, 1.1], False)]
)
def test_losses_are_compared_and_must_fall(machine, monkeypatch, own, is_right):
    printed = iter([own, [1.0, 0.5]])
    monkeypatch.setattr(Machine, "command", lambda *_: f"a note\n{json.dumps({'losses': next(printed)})}\n")
    machine.check("conv", lambda: checks.program(machine, "conv"))
    assert results(machine) == {"conv": "ok" if is_right else "FAILED"}


def test_without_a_gpu_it_is_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checks.nvidia, "gpus_present", list)
    monkeypatch.setattr(sys, "argv", ["gpu_checks.py", "--out", str(tmp_path / "report.md")])
    assert checks.main() == 2
    assert "no NVIDIA GPU" in capsys.readouterr().err
    assert not (tmp_path / "report.md").exists()


def test_the_script_says_the_same_before_it_installs_anything(tmp_path):
    command = [REPOSITORY / "launch" / "test.sh", "--gpu"]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: this machine shows no NVIDIA GPU")


@pytest.mark.parametrize(("passes", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_says_whether_all_passed(tmp_path, monkeypatch, capsys, passes, code):
    monkeypatch.setattr(checks, "run_all", lambda machine: machine.check("one", lambda: "4 ms" if passes else 1 / 0))
    monkeypatch.setattr(checks.tensorflow_facts, "ask", lambda environ: {"gpus": [], "tensorflow": "2.21.0 for CPUs"})
    out = tmp_path / "report.md"
    monkeypatch.setattr(sys, "argv", ["gpu_checks.py", "--stand-in", "--out", str(out)])
    assert checks.main() == code
    assert f"| one | {'ok' if passes else 'FAILED'} |" in out.read_text()
    assert ("did not pass: one" in capsys.readouterr().err) == (not passes)
