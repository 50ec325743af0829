"""A system without `/proc` takes the time of the call for the start."""

from __future__ import annotations

import time

import pytest

from distrain.reporting.process_time import process_began


@pytest.mark.parametrize("content", [None, "", "1 (python) S 1", "1 (a) b) S " + "x " * 40])
def test_without_linux_the_process_began_now(tmp_path, content):
    if content is not None:
        (tmp_path / "stat").write_text(content)
    before = time.time()
    assert before <= process_began(tmp_path / "stat") <= time.time()
