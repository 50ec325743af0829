"""Only a regular file is opened; a pipe is refused without a wait for its writer."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from distrain.regular_file import open_regular


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "make",
    [os.mkfifo, os.mkdir, make_socket, lambda path: path.symlink_to("/dev/zero")],
    ids=["pipe", "folder", "socket", "device"],
)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)  # the path of a socket has at most 107 characters
    make(Path("odd"))
    descriptors = Path("/proc/self/fd")
    before = len([*descriptors.iterdir()])
    with pytest.raises(OSError, match="odd"):
        open_regular(Path("odd"))
    assert len([*descriptors.iterdir()]) == before


def test_a_file_and_a_link_to_a_file_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"content"
