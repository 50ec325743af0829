"""Checks that fail or hang are findings, and hide no other check."""

from __future__ import annotations

import threading
import time

from distrain.doctor.finding import Finding, findings_of


def test_a_check_that_fails_or_hangs_leaves_the_others():
    def fails():
        raise RuntimeError("no such thing")

    checks = {"hangs": threading.Event().wait, "fails": fails, "works": lambda: Finding.ok("well")}
    began = time.monotonic()
    hangs, failed, works = findings_of(checks, seconds=0.5)
    assert time.monotonic() - began < 5
    assert (hangs.status, hangs.name) == ("error", "hangs")
    assert "no answer within 0.5 s" in hangs.message
    assert (failed.status, failed.name) == ("warning", "fails")
    assert "RuntimeError: no such thing" in failed.message
    assert works == Finding("ok", "well", name="works")
