"""Files of web servers: ranges, faults of the server, and what a user is told."""

from __future__ import annotations

import io
import random
import socket
import time
from pathlib import Path

import pytest
from certificates import self_signed
from web_server import WebServer, web_server

from distrain.errors import DataError
from distrain.remote import cache, ranged_file, storage
from distrain.remote.path import to_path

BLOCK = ranged_file.BLOCK_BYTES
CONTENT = random.Random(0).randbytes(5 * BLOCK + 12_345)


def _read(url: str) -> bytes:
    with to_path(url).open() as file:
        return file.read()


def _fresh(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Let the next request use other timeouts."""
    for name, value in seconds.items():
        monkeypatch.setattr(storage, name, value)
    storage._FILESYSTEMS.clear()


def test_a_file_is_read_by_range_once_and_then_from_the_cache(server: WebServer):
    server.files["/a.bin"] = CONTENT
    path = to_path(server.url("/a.bin"))
    assert path.stat().st_size == len(CONTENT)
    with path.open() as file:
        file.seek(-8, io.SEEK_END)
        assert file.read() == CONTENT[-8:]
    assert server.sent < BLOCK  # the last block and the first byte
    assert _read(server.url("/a.bin")) == CONTENT
    assert server.sent <= len(CONTENT) + 2
    before = len(server.requests)
    assert _read(server.url("/a.bin")) == CONTENT
    assert len(server.requests) == before + 1  # what the file is now


def test_random_reads_give_the_bytes_of_the_file(server: WebServer):
    server.files["/a.bin"] = CONTENT
    numbers = random.Random(1)
    with to_path(server.url("/a.bin")).open() as file:
        for _ in range(50):
            start, length = numbers.randrange(len(CONTENT) + 10), numbers.choice([0, 1, 1000, BLOCK, 3 * BLOCK])
            file.seek(start)
            assert file.read(length) == CONTENT[start : start + length]


@pytest.mark.parametrize("content", [b"", b"x", CONTENT[: 2 * BLOCK]])
def test_files_of_special_sizes(server: WebServer, content: bytes):
    server.files["/a.bin"] = content
    assert _read(server.url("/a.bin")) == content


def test_a_server_without_ranges_gives_the_file_once(server: WebServer):
    server.has_ranges = False
    server.files["/a.bin"] = CONTENT
    with to_path(server.url("/a.bin")).open() as file:
        file.seek(3 * BLOCK)
        assert file.read(5) == CONTENT[3 * BLOCK : 3 * BLOCK + 5]
        file.seek(0)
        assert file.read() == CONTENT
    assert [asked for _, asked in server.requests] == ["bytes=0-0", None]


def test_a_server_without_ranges_and_a_small_cache(server: WebServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DISTRAIN_CACHE_GIB", str(8 / 1024))
    cache.find_cache.cache_clear()
    server.has_ranges = False
    server.files["/a.bin"] = CONTENT
    with pytest.raises(DataError, match=r"does not serve ranges, and the file is larger than half the cache"):
        _read(server.url("/a.bin"))


@pytest.mark.parametrize("fault", ["500", "503", "429", "reset", "short"])
def test_a_fault_that_passes_is_tried_again(server: WebServer, fault: str):
    server.files["/a.bin"] = CONTENT
    server.faults += [fault, "", fault, fault]
    assert _read(server.url("/a.bin")) == CONTENT


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (["404"], "does not exist"),
        (["403"], "access is denied. Give a URL that may be read"),
        (["401"], "access is denied"),
        (["500"] * 4, "the server answers with HTTP status 500"),
        (["", "reset", "reset", "reset", "reset"], "the connection cannot be made, or breaks"),
        (["", "", "changed"], "changed while it was read"),
        (["", "412"], "changed while it was read"),
        (["", "416"], "changed while it was read"),
    ],
)
def test_a_fault_that_stays_is_a_sentence_without_secrets(server: WebServer, faults: list[str], message: str):
    server.files["/a.bin"] = CONTENT
    server.faults += faults
    with pytest.raises(DataError, match=message) as caught:
        _read(server.url("/a.bin?sig=secret").replace("//", "//ana:secret@"))
    assert str(caught.value).startswith(server.url("/a.bin"))
    assert "secret" not in str(caught.value)


def test_a_file_that_shrinks_between_two_ranges_is_told(server: WebServer):
    server.has_identity = False
    server.files["/a.bin"] = CONTENT
    with to_path(server.url("/a.bin")).open() as file:
        file.read(10)
        server.files["/a.bin"] = CONTENT[: 4 * BLOCK]
        file.seek(2 * BLOCK)
        with pytest.raises(DataError, match="changed while it was read"):
            file.read()


@pytest.mark.parametrize("fault", ["silent", "trickle"])
def test_a_server_that_stops_answering_is_told_in_bounded_time(
    server: WebServer, monkeypatch: pytest.MonkeyPatch, fault: str
):
    _fresh(monkeypatch, SILENT_SECONDS=0.2, REQUEST_SECONDS=0.5)
    server.files["/a.bin"] = CONTENT
    server.faults += ["", fault, fault, fault, fault]
    started = time.monotonic()
    with pytest.raises(DataError, match="did not answer in time"):
        _read(server.url("/a.bin"))
    assert time.monotonic() - started < 30
    storage._FILESYSTEMS.clear()


def test_a_host_that_nobody_knows_and_a_port_where_nobody_listens():
    with pytest.raises(DataError, match="the host is unknown"):
        _read("http://no-such-host.invalid/a.csv")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(DataError, match="the connection cannot be made"):
            _read(f"http://127.0.0.1:{free.getsockname()[1]}/a.csv")


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path):
    with web_server(self_signed(tmp_path)) as secure:
        secure.files["/a.csv"] = b"1,a\n"
        with pytest.raises(DataError, match="TLS certificate is not trusted"):
            _read(secure.url("/a.csv"))
