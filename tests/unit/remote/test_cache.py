"""The cache of remote files: its bound and its damages."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from web_server import WebServer

from distrain.errors import ConfigurationError
from distrain.remote import ranged_file
from distrain.remote.cache import Cache, find_cache
from distrain.remote.path import to_path

BLOCK = ranged_file.BLOCK_BYTES
CONTENT = random.Random(0).randbytes(6 * BLOCK + 5)


class Owner:
    """Whoever has pinned an entry."""


def _size(root: Path) -> int:
    names = (path for path in root.rglob("*") if path.is_file() and path.parent != root)
    return sum(path.stat().st_size for path in names)


def _age(path: Path, seconds: int) -> None:
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - seconds))


def test_the_least_recently_used_block_goes_first(tmp_path: Path):
    cache = Cache(tmp_path / "cache", 10_000)
    for number in range(9):
        assert cache.put("entry", f"{number}", bytes([number]) * 1000)
        _age(cache.root / "entry" / f"{number}", 100 - number)
    assert cache.get("entry", "0") == bytes(1000)  # is the newest now
    for number in range(9, 40):
        assert cache.put("entry", f"{number}", bytes([number]) * 1000)
        assert _size(cache.root) <= 10_000
        if number == 9:
            assert cache.get("entry", "0") == bytes(1000)
            assert cache.get("entry", "1") is None


def test_what_is_larger_than_the_bound_is_not_kept(tmp_path: Path):
    cache = Cache(tmp_path / "cache", 1000)
    assert not cache.put("entry", "0", bytes(1000))
    assert not Cache(tmp_path / "none", 0).put("entry", "0", b"")
    assert not (tmp_path / "none").exists()


def test_a_pinned_entry_stays_while_its_owner_lives(tmp_path: Path):
    cache, owner = Cache(tmp_path / "cache", 10_000), Owner()
    folder = cache.pin("mapped", owner)
    assert cache.reserve(6000)
    with cache.unfinished(folder / "vectorizer" / "words") as tmp_path:
        tmp_path.write_bytes(bytes(6000))
    _age(folder / "vectorizer" / "words", 1000)
    for number in range(10):
        assert cache.put("entry", f"{number}", bytes(1000))
    assert not cache.reserve(5000)
    assert (folder / "vectorizer" / "words").stat().st_size == 6000
    del owner
    assert cache.reserve(5000)
    assert not (folder / "vectorizer" / "words").exists()


def test_leftovers_of_a_process_that_died_go_at_the_next_eviction(tmp_path: Path):
    cache = Cache(tmp_path / "cache", 5000)
    assert cache.put("entry", "0", bytes(1000))
    leftover = cache.root / "entry" / ".0.tmp"
    leftover.write_bytes(bytes(100))
    _age(leftover, 5000)
    for number in range(10):
        assert cache.put("other", f"{number}", bytes(1000))
    assert not leftover.exists()
    assert not (cache.root / "entry").exists()


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_block_is_fetched_again(server: WebServer, cache_folder: Path, damage: str):
    server.files["/a.bin"] = CONTENT
    url = server.url("/a.bin")
    assert to_path(url).open().read() == CONTENT
    (block,) = cache_folder.rglob("00000003")
    content = block.read_bytes()
    changed = content[:-1] + bytes([content[-1] ^ 1])
    block.write_bytes({"cut": content[:-7], "changed": changed, "empty": b""}[damage])
    before = server.sent
    assert to_path(url).open().read() == CONTENT
    assert server.sent - before == BLOCK + 1


def test_a_cache_that_cannot_be_written_is_left_out(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DISTRAIN_CACHE", str(tmp_path / "file"))
    find_cache.cache_clear()
    server.files["/a.bin"] = CONTENT
    assert to_path(server.url("/a.bin")).open().read() == CONTENT
    assert "cannot be written: Not a directory. Remote files are read without it" in caplog.text
    assert len(caplog.records) == 1


def test_a_turn_in_an_entry_that_cannot_be_written_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache = Cache(tmp_path / "cache", 10_000)
    cache.put("entry", "0", b"block")

    def refused(*given: object) -> int:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr("distrain.remote.cache.os.open", refused)
        with cache.turn("entry"):
            assert cache.get("entry", "0") == b"block"


def test_another_content_at_the_same_url_is_another_file(server: WebServer):
    server.files["/a.bin"] = CONTENT
    assert to_path(server.url("/a.bin")).open().read() == CONTENT
    server.files["/a.bin"] = CONTENT[::-1]
    assert to_path(server.url("/a.bin")).open().read() == CONTENT[::-1]


def test_a_server_without_identity_is_believed_for_one_opened_file(server: WebServer):
    """Also where Python gives a new file the address of a closed one."""
    server.has_identity = False
    for content in (CONTENT, CONTENT[::-1], *(bytes([number]) * 10 for number in range(10))):
        server.files["/a.bin"] = content
        assert to_path(server.url("/a.bin")).open().read() == content


def test_a_user_without_a_home_folder_names_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert find_cache().root.parent == tmp_path / "cache"
    monkeypatch.delenv("DISTRAIN_CACHE")
    find_cache.cache_clear()
    with pytest.raises(ConfigurationError, match="no home folder for the cache of remote files: set DISTRAIN_CACHE"):
        find_cache()


@pytest.mark.parametrize("given", ["much", "-1", "nan", "1e9"])
def test_a_size_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, given: str):
    monkeypatch.setenv("DISTRAIN_CACHE_GIB", given)
    find_cache.cache_clear()
    with pytest.raises(ConfigurationError, match=f"DISTRAIN_CACHE_GIB is '{given}'"):
        find_cache()
