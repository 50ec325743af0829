"""A cache of its own for each test, and a web server that several tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from web_server import WebServer, web_server


@pytest.fixture(autouse=True)
def _own_cache(cache_folder: Path) -> None:
    """Keep files of one test out of the next."""


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as started:
        yield started
