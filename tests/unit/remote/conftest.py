"""A cache of its own for each test, and servers that several tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from object_store import ObjectStore, object_store
from web_server import WebServer, web_server

from distrain.remote import cache, storage


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("DISTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DISTRAIN_CACHE_GIB", raising=False)
    monkeypatch.setattr(storage, "_FIRST_WAIT", 0.01)
    cache.find_cache.cache_clear()
    yield tmp_path / "cache"
    cache.find_cache.cache_clear()


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as started:
        yield started


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    storage._FILESYSTEMS.clear()
    with object_store() as started:
        yield started
    storage._FILESYSTEMS.clear()
