"""Launches that start before the tests that read them.

for (job,) in selected_parameters(request.session.items, "job"):
    pool.submit(launch, job)
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable
from typing import Any

import pytest

# On two cores, more launches at once would only wait for each other. Other test processes keep the cores busy.
MAX_LAUNCHES = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2


def selected_parameters(items: Iterable[pytest.Item], *names: str) -> list[tuple[Hashable, ...]]:
    """Return the distinct values of the parameters `names` among the tests that will run, in the order of the tests."""
    found: dict[tuple[Hashable, ...], None] = {}
    for item in items:
        parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
        is_skipped = any(mark.args[0] for mark in item.iter_markers("skipif"))
        if not is_skipped and all(name in parameters for name in names):
            found[tuple(parameters[name] for name in names)] = None
    return list(found)
