"""When a process began, against a process that is known to have begun just now, and one that has waited."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from distrain.reporting.process_time import process_began


def test_a_process_began_when_it_was_started():
    program = (
        "import time; time.sleep(0.3); "
        "from distrain.reporting.process_time import process_began; print(process_began())"
    )
    before = time.time()
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert before - 0.05 <= float(told.stdout) <= time.time() - 0.3  # it is known to a hundredth of a second


@pytest.mark.parametrize("content", [None, "", "1 (python) S 1", "1 (a) b) S " + "x " * 40])
def test_without_linux_it_began_now(tmp_path, content):
    if content is not None:
        (tmp_path / "stat").write_text(content)
    before = time.time()
    assert before <= process_began(tmp_path / "stat") <= time.time()
