"""What a check found, and how long a check may take.

Decides: that a check which fails or hangs is a finding too. Never: checks anything.

    >>> from distrain.doctor.finding import Finding, findings_of
    >>> findings_of({"disk": lambda: Finding.ok("writes 500 MB/s")}, seconds=5.0)
    [Finding(status='ok', message='writes 500 MB/s', cure='', name='disk')]
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        status: "ok"; "warning" for what slows training or stops some uses; "error" for what stops training.
        message: what was found.
        cure: what to do; empty if all is well.
        name: name of the check.
    """

    status: str
    message: str
    cure: str = ""
    name: str = ""

    @classmethod
    def ok(cls, message: str) -> Finding:
        """Return a finding of something that works."""
        return cls("ok", message)

    @classmethod
    def warning(cls, message: str, cure: str) -> Finding:
        """Return a finding of something that slows training, or stops some uses."""
        return cls("warning", message, cure)

    @classmethod
    def error(cls, message: str, cure: str) -> Finding:
        """Return a finding of something that stops training."""
        return cls("error", message, cure)


def findings_of(checks: Mapping[str, Callable[[], Finding]], *, seconds: float) -> list[Finding]:
    """Run all checks at once, and return their findings in the given order.

    Args:
        checks: what to run, by name. A check changes nothing, because one that hangs is left to the end of the process.
        seconds: time for all checks together.
    """
    found: dict[str, Finding] = {}

    def run(name: str, check: Callable[[], Finding]) -> None:
        try:
            found[name] = check()
        except Exception as error:  # a check that fails must not hide the others
            found[name] = Finding.warning(
                f"the check failed: {type(error).__name__}: {error}", "report this as a defect"
            )

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in checks.items()]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(timeout=max(0.0, end - time.monotonic()))
    hangs = Finding.error(f"no answer within {seconds:g} s", "find out what hangs: a dead network drive, server or GPU")
    return [replace(found.get(name, hangs), name=name) for name in checks]
