"""The relay of standard error, and errors as exit codes."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from distrain.cluster.world import LAUNCH_ID
from distrain.errors import DataError, StopRequested
from distrain.launchers.supervisor import (
    MAX_LINE_BYTES,
    StderrRelay,
    accepts_connection,
    exit_code_of,
    run_with_restarts,
    send_once,
)


def relayed(*written: bytes) -> StderrRelay:
    """A relay whose writers have written and ended."""
    relay = StderrRelay()
    for text in written:
        os.write(relay.fileno(), text)
    relay.begin()
    relay.end()
    return relay


@pytest.mark.parametrize(
    ("line", "is_final"),
    [
        (b"distrain: error: rank 0: a shard is damaged\n", True),
        (b"distrain: stopped: rank 0\n", True),
        (b"distrain train: error: unrecognized arguments\n", True),
        (b"distrain: warning: a shard is small\n", False),
        (b"an error that names distrain: error\n", False),
        (b"distrain: error: without a line end", True),
        (b"\xff\xfe no UTF-8\n", False),
    ],
)
def test_the_relay_writes_all_and_notices_a_final_message(line, is_final, capfdbinary):
    assert relayed(b"before\n", line).has_final_message is is_final
    assert capfdbinary.readouterr().err == b"before\n" + line


def test_a_line_without_end_is_relayed_in_parts(capfdbinary):
    text = b"x" * (MAX_LINE_BYTES - 1)  # a pipe holds as much
    relayed(text)
    assert capfdbinary.readouterr().err == text


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("a shard is damaged"), 3, "distrain: error: pod 1: a shard is damaged\n"),
        (StopRequested("asked"), 42, "distrain: stopped: pod 1: asked\n"),
    ],
)
def test_an_error_becomes_its_exit_code_and_one_message(error, code, message, capfd):
    def fail() -> int:
        raise error

    assert exit_code_of(fail, prefix="pod 1: ") == code
    assert capfd.readouterr().err == message
    assert exit_code_of(lambda: 7) == 7


def test_each_process_gets_a_signal_once(monkeypatch):
    signals = []
    monkeypatch.setattr(os, "kill", lambda pid, number: signals.append((pid, number)))
    sent: set[int] = set()
    send_once(signal.SIGTERM, [11, 12], sent)
    send_once(signal.SIGTERM, [12, 13], sent)
    assert sorted(signals) == [(pid, signal.SIGTERM) for pid in (11, 12, 13)]


def test_a_listener_is_found_and_its_end_noticed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        assert accepts_connection(address)
    assert not accepts_connection(address)
    assert not accepts_connection(("nowhere.invalid", 1))


@pytest.mark.parametrize("given", [None, "", "uid of a Job"])
def test_all_starts_of_a_job_have_one_id_that_a_scheduler_may_set(given, monkeypatch):
    """A Job of Kubernetes, or a job of SLURM, also replaces the process that starts ranks again."""
    monkeypatch.setenv(LAUNCH_ID, given or "")
    if given is None:
        monkeypatch.delenv(LAUNCH_ID)
    seen = []

    def run() -> int:
        seen.append(os.environ[LAUNCH_ID])
        return 5

    assert run_with_restarts(run, 2, lambda code: code == 5) == 5
    assert len(seen) == 3
    assert len(set(seen)) == 1
    assert seen[0] == given if given else len(seen[0]) == 32
