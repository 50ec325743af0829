"""Locks have one holder, damaged JSON is refused, and checksums cover names and contents."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from pathlib import Path

import pytest
from waiting import wait_until

from distrain.errors import ConfigurationError, DataError
from distrain.files import (
    exclusive_lock,
    folder_digest,
    json_bytes,
    read_json_object,
    sha256_of,
    write_json,
)


def waiters(path):
    """Return the lines of /proc/locks of who waits for the lock of a file or folder; see proc_locks(5)."""
    lines = Path("/proc/locks").read_text().splitlines()
    return [line for line in lines if "->" in line and line.split()[-3].endswith(f":{path.stat().st_ino}")]


class TestExclusiveLock:
    """One holder at a time."""

    BUSY = ConfigurationError("Another process is at work here.")

    @pytest.mark.parametrize("kind", ["file", "folder"])
    def test_a_second_holder_gets_the_error_until_the_first_is_done(self, tmp_path, kind):
        path = tmp_path
        if kind == "file":
            path = tmp_path / "a"
            path.touch()
        with exclusive_lock(path, busy=self.BUSY):
            for _ in range(2):
                with pytest.raises(ConfigurationError, match="at work here"), exclusive_lock(path, busy=self.BUSY):
                    pass
        with exclusive_lock(path, busy=self.BUSY):
            pass

    def test_a_lock_ends_with_an_error_in_its_block(self, tmp_path):
        with pytest.raises(ZeroDivisionError), exclusive_lock(tmp_path, busy=self.BUSY):
            raise ZeroDivisionError
        with exclusive_lock(tmp_path, busy=self.BUSY):
            pass

    def test_a_file_system_without_locks_grants_every_lock(self, tmp_path, monkeypatch):
        def refuse(*_):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr("fcntl.flock", refuse)
        with exclusive_lock(tmp_path, busy=self.BUSY), exclusive_lock(tmp_path, busy=self.BUSY):
            pass

    def test_without_an_error_it_waits_for_the_other_process(self, tmp_path):
        order = []

        def wait():
            with exclusive_lock(tmp_path, busy=None):
                order.append("second")

        waiting = threading.Thread(target=wait)
        with exclusive_lock(tmp_path, busy=self.BUSY):
            waiting.start()
            wait_until(lambda: waiters(tmp_path))
            order.append("first")
        waiting.join(10)
        assert order == ["first", "second"]

    def test_no_descriptor_is_left_open(self, tmp_path):
        def held():
            return [entry for entry in Path("/proc/self/fd").iterdir() if entry.resolve() == tmp_path]

        with exclusive_lock(tmp_path, busy=self.BUSY):
            with pytest.raises(ConfigurationError):
                exclusive_lock(tmp_path, busy=self.BUSY).__enter__()
            assert len(held()) == 1
        assert held() == []


class TestJson:
    """JSON that is damaged or hostile is refused with a reason."""

    CONTENT = {"name": "é", "loss": None, "rates": [0.1, 2], "inner": {"on": True}}  # noqa: RUF012

    def test_what_was_written_is_read(self, tmp_path):
        write_json(tmp_path / "a", self.CONTENT)
        assert read_json_object(tmp_path / "a") == self.CONTENT
        assert "é" in (tmp_path / "a").read_text(encoding="utf-8")
        assert (tmp_path / "a").read_bytes().endswith(b"}\n")

    def test_a_path_that_is_not_utf8_survives(self, tmp_path):
        content = {"run": os.fsdecode(b"run\xff"), "name": "é"}
        (tmp_path / "a").write_bytes(json_bytes(content))
        assert read_json_object(tmp_path / "a") == content

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "Expecting value"),
            (b"{", "Expecting property name"),
            (b'{"a": 1} {', "Extra data"),
            (b"[]", "not a JSON object"),
            (b"null", "not a JSON object"),
            (b'{"a": ' * 100_000, "nested too deeply"),
            (b"\xff", "can't decode"),
            ("{}".encode("utf-16"), "can't decode"),
            (b'{"a": 1, "b": {"c": 1, "c": 2}}', "one name twice"),
        ],
    )
    def test_what_is_no_object_is_refused_with_a_reason(self, tmp_path, content, reason):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(ValueError, match=reason):
            read_json_object(tmp_path / "a")

    def test_a_large_file_is_refused_unread(self, tmp_path):
        with (tmp_path / "a").open("wb") as file:
            file.truncate(2**40)  # a sparse file: read whole, it would fill the memory
        with pytest.raises(ValueError, match="more than 1,000 bytes"):
            read_json_object(tmp_path / "a", max_bytes=1000)
        (tmp_path / "b").write_text(json.dumps({"a": "x" * 991}))
        assert (tmp_path / "b").stat().st_size == 1000
        assert read_json_object(tmp_path / "b", max_bytes=1000)

    def test_an_absent_file_is_told_apart(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            read_json_object(tmp_path / "a")


class TestChecksums:
    """Checksums cover names and contents."""

    @pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1])
    def test_a_checksum_covers_the_whole_file(self, tmp_path, size):
        content = os.urandom(size)
        (tmp_path / "a").write_bytes(content)
        assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()

    def test_a_folder_is_known_by_names_and_contents(self, tmp_path):
        digests = set()
        for number, files in enumerate(
            [{"a": "1", "b": "2"}, {"a": "12", "b": ""}, {"b": "1", "a": "2"}, {"ab": "12"}]
        ):
            folder = tmp_path / str(number)
            folder.mkdir()
            for name, text in files.items():
                (folder / name).write_text(text)
            digests.add(folder_digest(folder))
        assert len(digests) == 4

    @pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that opens and cannot be read needs Linux")
    def test_a_file_that_cannot_be_read_is_wrong_data(self, tmp_path):
        (tmp_path / "words").symlink_to("/proc/self/mem")
        with pytest.raises(DataError, match="Every rank must be able to"):
            folder_digest(tmp_path)
