"""What tests of remote data share: a cache of their own, and a server of objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from object_store import ObjectStore, object_store

from distrain.remote import cache, storage


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache for one test, and short waits before a request is tried again."""
    monkeypatch.setenv("DISTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DISTRAIN_CACHE_GIB", raising=False)
    monkeypatch.setattr(storage, "_FIRST_WAIT", 0.01)
    cache.find_cache.cache_clear()
    yield tmp_path / "cache"
    cache.find_cache.cache_clear()


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    """An S3 server, and no connection to an earlier one."""
    storage._FILESYSTEMS.clear()
    with object_store() as started:
        yield started
    storage._FILESYSTEMS.clear()
