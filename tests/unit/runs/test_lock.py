"""One job at a time trains in a run directory, also where the file system grants no locks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import threading
import time

import pytest

from distrain.errors import CheckpointError
from distrain.runs import lock
from distrain.runs.lock import check_held, hold_run

OTHER = {"host": "elsewhere", "boot": "another", "process": 7, "token": "theirs", "since": 0.0}


@pytest.fixture(autouse=True)
def short_lease(monkeypatch):
    for name, seconds in (("RENEW_SECONDS", 0.1), ("LEASE_SECONDS", 1.0), ("SETTLE_SECONDS", 0.2)):
        monkeypatch.setattr(lock, name, seconds)


@pytest.fixture
def no_locks(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "fcntl", refuse)


@pytest.fixture
def other_holder(tmp_path):
    """Keep the lock file of another host alive until the returned event is set."""
    (tmp_path / ".lock").write_text(json.dumps(OTHER))
    ended = threading.Event()

    def renew():
        while not ended.wait(0.1):
            os.utime(tmp_path / ".lock")

    thread = threading.Thread(target=renew)
    thread.start()
    yield ended
    ended.set()
    thread.join()


def test_a_holder_is_named_and_a_released_directory_is_free(tmp_path):
    run = tmp_path / "runs" / "1"
    for _ in range(2):
        with hold_run(run):
            check_held(run)
            with pytest.raises(CheckpointError, match=rf"another process trains in .*\(process {os.getpid()} on host"):
                hold_run(run).__enter__()
            check_held(run)  # the refused process changed nothing
    assert (run / ".lock").read_bytes() == b""


@pytest.mark.usefixtures("other_holder")
def test_a_living_holder_of_another_host_is_respected_whatever_locks_say(tmp_path):
    with pytest.raises(CheckpointError, match="process 7 on host 'elsewhere'"):
        hold_run(tmp_path).__enter__()
    assert json.loads((tmp_path / ".lock").read_text()) == OTHER


@pytest.mark.usefixtures("other_holder", "no_locks")
def test_a_living_holder_is_respected_without_locks(tmp_path):
    with pytest.raises(CheckpointError, match="process 7 on host 'elsewhere'"):
        hold_run(tmp_path).__enter__()


@pytest.mark.usefixtures("no_locks")
def test_a_dead_holder_is_replaced_after_its_lease(tmp_path, other_holder):
    other_holder.set()
    began = time.monotonic()
    with hold_run(tmp_path):
        assert time.monotonic() - began >= 1.0
        check_held(tmp_path)
        touched = (tmp_path / ".lock").stat().st_mtime_ns
        time.sleep(0.5)
        assert (tmp_path / ".lock").stat().st_mtime_ns > touched  # it shows its own life
    with hold_run(tmp_path):  # a released directory is taken without waiting
        pass


@pytest.mark.usefixtures("no_locks")
def test_of_two_that_take_at_once_the_last_to_write_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: (tmp_path / ".lock").write_text(json.dumps(OTHER)))
    with pytest.raises(CheckpointError, match="elsewhere"):
        hold_run(tmp_path).__enter__()


def test_a_dead_holder_of_this_host_costs_no_time(tmp_path):
    (tmp_path / ".lock").write_text(json.dumps({**OTHER, "boot": lock._boot()}))
    with hold_run(tmp_path):
        check_held(tmp_path)


def test_a_holder_notices_that_its_directory_is_gone_or_taken(tmp_path):
    run = tmp_path / "1"
    with hold_run(run):
        shutil.rmtree(run)
        with pytest.raises(CheckpointError, match=f"{run} was removed"):
            check_held(run)
    assert not run.exists()
    with hold_run(run):
        (run / ".lock").write_text(json.dumps(OTHER))
        with pytest.raises(CheckpointError, match="taken over by process 7 on host 'elsewhere'"):
            check_held(run)
    assert json.loads((run / ".lock").read_text()) == OTHER  # a lost directory is not released


@pytest.mark.parametrize("planted", ["link", "folder", "pipe"])
def test_nothing_is_written_through_a_planted_lock_file(tmp_path, planted):
    (tmp_path / "target").write_text("precious")
    path = tmp_path / "run" / ".lock"
    path.parent.mkdir()
    {"link": lambda: path.symlink_to(tmp_path / "target"), "folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}[
        planted
    ]()
    with pytest.raises(CheckpointError, match=r"\.lock is a link or no regular file"):
        hold_run(path.parent).__enter__()
    assert (tmp_path / "target").read_text() == "precious"


@pytest.mark.parametrize("content", [b"\xff", b"[]", b"{", b"[" * 5000])
def test_a_damaged_lock_file_bars_nobody(tmp_path, content):
    (tmp_path / ".lock").write_bytes(content)
    with hold_run(tmp_path):
        check_held(tmp_path)
