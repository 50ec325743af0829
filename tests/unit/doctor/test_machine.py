"""Faults of a disk and of ports, and what the checks leave behind; namespaces make the others in tests/system."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple

import pytest

from distrain.doctor import machine

Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.mark.parametrize(("free", "status"), [(2**30, "ok"), (2**25, "warning"), (2**20, "error")])
def test_the_free_space_of_shared_memory_counts(monkeypatch, free, status):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**30, 0, free))
    found = machine.check_shared_memory()
    assert found.status == status
    assert "1,024 MiB" in found.message
    assert ("--shm-size" in found.cure) == (status != "ok")


def test_the_disk_check_leaves_nothing(tmp_path):
    found = machine.check_disk(tmp_path)
    assert found.status in ("ok", "warning"), found
    assert "MB/s" in found.message
    assert list(tmp_path.iterdir()) == []


def test_a_slow_disk_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "SLOW_DISK", 1e15)
    assert machine.check_disk(tmp_path).status == "warning"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_takes_nothing_is_an_error(tmp_path, monkeypatch, code):
    def fails(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(machine.os, "fsync", fails)
    found = machine.check_disk(tmp_path)
    assert found.status == "error"
    assert str(tmp_path) in found.message


def test_a_missing_folder_is_an_error(tmp_path):
    assert machine.check_disk(tmp_path / "absent").status == "error"


def test_a_port_of_this_machine():
    assert machine.check_ports().status == "ok"


def test_a_port_that_cannot_be_bound(monkeypatch):
    def fails(address):
        raise PermissionError(errno.EACCES, "refused")

    monkeypatch.setattr(machine.socket, "create_server", fails)
    assert machine.check_ports().status == "error"
