"""What tests of remote data share: a server of objects."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from object_store import ObjectStore, object_store

from distrain.remote import storage


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    """An S3 server, and no connection to an earlier one."""
    storage._FILESYSTEMS.clear()
    with object_store() as started:
        yield started
    storage._FILESYSTEMS.clear()
