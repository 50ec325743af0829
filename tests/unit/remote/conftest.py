"""A cache of its own for each test."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_cache(cache_folder: Path) -> None:
    """Keep files of one test out of the next."""
