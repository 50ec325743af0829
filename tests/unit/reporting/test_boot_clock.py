"""A system without `/proc` takes the time of the call for the start."""

from __future__ import annotations

import pytest

from distrain.reporting.boot_clock import boot_clock, process_began


@pytest.mark.parametrize("content", [None, "", "1 (python) S 1", "1 (a) b) S " + "x " * 40])
def test_without_linux_the_process_began_now(tmp_path, content):
    if content is not None:
        (tmp_path / "stat").write_text(content)
    before = boot_clock()
    assert before <= process_began(tmp_path / "stat") <= boot_clock()
