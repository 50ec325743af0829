"""Prepared data sets on a server: fetched into the cache, compared, shared and refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from object_store import ObjectStore
from prepared_data import Result, rows, write_csv
from web_server import WebServer

from distrain.data.prepared.dataset_index import Dataset, open_dataset
from distrain.data.verification import is_dataset, verify_dataset
from distrain.errors import ConfigurationError, DataError
from distrain.remote.cache import find_cache
from distrain.remote.path import to_path

pytestmark = pytest.mark.usefixtures("cache_folder")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of several shards of training rows."""
    base = tmp_path_factory.mktemp("prepared")
    out = base / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distrain.data.prepared.dataset_writer.SHARD_BYTES", 16_000, raising=True)
        Result(train=(write_csv(base / "train.csv", rows(600)),), out=out)
    return out


@pytest.fixture(scope="module")
def url(store: ObjectStore, folder: Path) -> str:
    """The data set in the store, where no test changes it."""
    return store.put_folder(folder, "whole")


@pytest.fixture
def server(server: WebServer, folder: Path) -> WebServer:
    """A web server of the data set below `/d`; a request to it costs a tenth of one to the store."""
    server.files = {f"/d/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*.*")}
    return server


def _same(one: Dataset, other: Dataset) -> bool:
    def arrays(dataset: Dataset) -> list[np.ndarray]:
        found = [part.read(0, part.num_rows) for part in dataset.parts.values()]
        return [array for part in found for array in part if array is not None]

    pairs = zip(arrays(one), arrays(other), strict=True)
    return one.digest == other.digest and all(np.array_equal(*pair) for pair in pairs)


def test_rows_and_digest_are_those_of_the_local_folder(url: str, folder: Path):
    local, remote = open_dataset(folder), open_dataset(to_path(url))
    assert len(local.parts["train"].shards) > 2
    assert _same(local, remote)
    assert remote.vectorizer is not None
    assert {path.name for path in remote.vectorizer.iterdir()} == {path.name for path in local.vectorizer.iterdir()}
    assert np.array_equal(local.parts["train"].row_lengths(), remote.parts["train"].row_lengths())


def test_files_come_when_they_are_needed_and_only_once(server: WebServer):
    part = open_dataset(to_path(server.url("/d"))).parts["train"]
    assert not any("train-" in path for path, _ in server.requests)
    part.read(0, 1)
    asked = {path for path, _ in server.requests if "train-" in path}
    assert asked == {f"/d/{file.name}" for file in part.shards[0].files.values()}
    part.will_need(np.array([[part.shards[1].first_row, part.shards[1].first_row + 1]]))
    part.read(0, part.num_rows)
    before = len(server.requests)
    again = open_dataset(to_path(server.url("/d"))).parts["train"]
    again.read(0, again.num_rows)
    assert {path for path, _ in server.requests[before:]} == {"/d/dataset.json"}


def test_one_line_tells_of_a_long_transfer(server: WebServer, monkeypatch, caplog):
    url = server.url("/d")
    open_dataset(to_path(url))
    assert "not in the cache" not in caplog.text
    monkeypatch.setattr("distrain.data.prepared.fetched_folder.TOLD_BYTES", 1)
    for part in open_dataset(to_path(url)).parts.values():
        part.read(0, part.num_rows)
    assert caplog.text.count("GiB are not in the cache") == 1
    open_dataset(to_path(url))
    assert caplog.text.count("GiB are not in the cache") == 1


def test_a_damaged_file_of_the_cache_is_fetched_again(server: WebServer, folder: Path, cache_folder: Path):
    url = server.url("/d")
    assert _same(open_dataset(folder), open_dataset(to_path(url)))
    for number, path in enumerate(sorted(cache_folder.rglob("train-*.npy"))):
        content = path.read_bytes()
        path.write_bytes(content[:-1] if number % 2 else content[:-1] + bytes([content[-1] ^ 1]))
    assert _same(open_dataset(folder), open_dataset(to_path(url)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "was changed: its SHA-256 does not fit"),
        (lambda content: content[:-5], "bytes instead of"),
        (None, "does not exist"),
    ],
)
def test_a_shard_that_is_not_what_was_prepared_is_named(server: WebServer, folder: Path, change, message: str):
    url = server.url("/d")
    name = open_dataset(folder).parts["train"].shards[1].files["columns"].name
    content = server.files.pop(f"/d/{name}")
    if change is not None:
        server.files[f"/d/{name}"] = change(content)
    part = open_dataset(to_path(url)).parts["train"]
    with pytest.raises(DataError, match=f"^{url}/{name} .*{message}"):
        part.read(0, part.num_rows)
    findings = verify_dataset(to_path(url))
    assert list(findings.faults) == [name]
    assert message in findings.faults[name]


def test_verify_reads_the_server_and_lists_what_is_unknown(store: ObjectStore, folder: Path):
    url = store.put_folder(folder, "verified")
    store.put("verified/notes.txt", b"")
    assert is_dataset(to_path(url))
    assert not is_dataset(to_path(f"{url}/vectorizer"))
    findings = verify_dataset(to_path(url))
    assert (findings.faults, findings.unknown) == ({}, ("notes.txt",))
    assert findings.bytes == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_cache_that_is_too_small_and_a_folder_without_index_are_told(url: str, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DataError, match=f"{url}/vectorizer is not a prepared .*json. Of URLs only prepared"):
        open_dataset(to_path(f"{url}/vectorizer"))
    monkeypatch.setenv("DISTRAIN_CACHE_GIB", "0.00003")
    find_cache.cache_clear()
    with pytest.raises(ConfigurationError, match="set DISTRAIN_CACHE_GIB to a larger number"):
        open_dataset(to_path(url))


def test_a_full_disk_is_a_sentence(url: str, cache_folder: Path):
    cache_folder.write_text("in the way")
    with pytest.raises(DataError, match=r"cannot be written: Not a directory\. Free its disk, or name another folder"):
        open_dataset(to_path(url))
