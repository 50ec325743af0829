"""Objects of an S3 server: folders, patterns, changes and refusals."""

from __future__ import annotations

import os
import random
import sys

import pytest
from object_store import BUCKET, ObjectStore
from web_server import WebServer

from distrain.errors import ConfigurationError, DataError
from distrain.remote import storage
from distrain.remote.path import to_path

pytestmark = pytest.mark.usefixtures("cache_folder")

CONTENT = random.Random(0).randbytes(3_000_000)


def test_folders_and_patterns_are_listed(store: ObjectStore):
    for name in ("b.csv", "a.csv", "sub/c.csv", "_SUCCESS"):
        store.put(f"listed/{name}", name.encode())
    folder = to_path(f"s3://{BUCKET}/listed/")
    assert (folder.exists(), folder.is_dir(), folder.is_file()) == (True, True, False)
    entries = sorted(folder.iterdir())
    assert [(entry.name, entry.is_dir()) for entry in entries] == [
        ("_SUCCESS", False), ("a.csv", False), ("b.csv", False), ("sub", True),
    ]  # fmt: skip
    assert [path.open().read() for path in to_path(f"s3://{BUCKET}/listed/*.csv").matches()] == [b"a.csv", b"b.csv"]
    assert not to_path(f"s3://{BUCKET}/listed/*.tsv").matches()


def test_an_object_is_read_and_a_changed_one_is_told(store: ObjectStore):
    path = to_path(store.put("a.bin", CONTENT))
    assert path.stat().st_size == len(CONTENT)
    file = path.open()
    assert file.read(10) == CONTENT[:10]
    store.put("a.bin", CONTENT[::-1])
    file.seek(2_500_000)
    with pytest.raises(DataError, match=r"^s3://bucket/a.bin changed while it was read"):
        file.read(10)


@pytest.mark.parametrize("url", [f"s3://{BUCKET}/none.csv", "s3://no-such-bucket/a.csv", f"s3://{BUCKET}/none/"])
def test_what_is_not_there_does_not_exist(store: ObjectStore, url: str):
    assert not to_path(url).exists()
    with pytest.raises(DataError, match="does not exist"):
        to_path(url).open()


def test_refused_and_missing_credentials_are_told(
    store: ObjectStore, server: WebServer, monkeypatch: pytest.MonkeyPatch
):
    server.faults += ["403"] * 8
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url(""))
    storage._FILESYSTEMS.clear()
    with pytest.raises(DataError, match=r"s3://bucket/a.csv: access is denied. Set AWS_ACCESS_KEY_ID"):
        to_path("s3://bucket/a.csv").open()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    storage._FILESYSTEMS.clear()
    with pytest.raises(DataError, match=r"no credentials were found\. Set AWS_ACCESS_KEY_ID"):
        to_path("s3://bucket/a.csv").open()
    storage._FILESYSTEMS.clear()


def test_a_library_that_is_missing_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch):
    storage._FILESYSTEMS.clear()
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(
        ConfigurationError, match=r"gs://b/a.csv needs gcsfs, .* pip install 'distrain\[remote\]' gcsfs"
    ):
        to_path("gs://b/a.csv").open()
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'distrain\[remote\]'$"):
        to_path("s3://b/a.csv").open()
