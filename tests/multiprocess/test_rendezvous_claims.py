"""Ranks that are missing, come twice or are lost while they join: all end with one message, in real processes."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from contextlib import ExitStack

import pytest
from free_ports import free_port
from rendezvous_ranks import (
    JOIN,
    all_join,
    by_hand,
    ended,
    horovods_own_server,
    pod,
    task,
    wait_for_claim,
)

from distrain.cluster.rendezvous_store import Store
from distrain.errors import RankError


def test_rank_0_that_never_comes(start):
    port = free_port()
    code, out, err = ended(start(JOIN, task(1, 2, port, DISTRAIN_RENDEZVOUS_SECONDS="1")))
    assert (code, out) == (5, "")
    assert f"127.0.0.1:{port}, which rank 0 hosts, did not answer rank 1 within 1 s" in err
    assert "Traceback" not in err


def test_a_name_that_nobody_knows(start):
    environ = pod(1, 2, 29400, DISTRAIN_RENDEZVOUS="trainer-0.invalid:29400", DISTRAIN_RENDEZVOUS_SECONDS="1")
    code, _, err = ended(start(JOIN, environ))
    assert code == 5
    assert "trainer-0.invalid:29400" in err
    first = {**environ, "JOB_COMPLETION_INDEX": "0"}
    code, _, err = ended(start(JOIN, first))
    assert code == 5
    assert "Rank 0 could not host the rendezvous at trainer-0.invalid:29400" in err


def test_a_rank_that_never_comes_ends_all_with_one_message(start):
    port = free_port()
    processes = [start(JOIN, task(rank, 4, port, DISTRAIN_RENDEZVOUS_SECONDS="5")) for rank in (0, 2)]
    results = [ended(process) for process in processes]
    assert [code for code, _, _ in results] == [5, 5]
    assert results[0][2] == results[1][2]
    assert "Rank(s) 1, 3 of 4 did not come to the rendezvous within 5 s" in results[0][2]


class _SlowStore(Store):
    """A store that returns the verdict of rank 0 slowly."""

    def get(self, path):
        if path.endswith("/all"):
            time.sleep(0.5)
        return super().get(path)


def test_rank_0_names_the_missing_ranks_if_its_deadline_passes_during_a_request():
    """Rank 0 does not report that it is missing itself."""
    with _SlowStore(("127.0.0.1", 0), size=2) as store:
        threading.Thread(target=store.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        (error,) = all_join([by_hand(0, 2, store.server_address[1], DISTRAIN_RENDEZVOUS_SECONDS="0.3")])
        store.shutdown()
    assert str(error).startswith("Rank(s) 1 of 2 did not come to the rendezvous within 0.3 s")


def test_ranks_with_different_worlds_all_end():
    port = free_port()
    errors = all_join([task(0, 2, port), task(1, 3, port)])
    assert {type(error) for error in errors} == {RankError}
    assert len({str(error) for error in errors}) == 1
    assert "rank 1 of 3" in str(errors[0])
    assert "2 processes connected" in str(errors[0])
    assert {error.reporting_rank for error in errors} == {0}


def test_ranks_with_one_local_rank_on_one_host_all_end():
    port = free_port()
    errors = all_join([pod(index, 2, port, HOROVOD_HOSTNAME="one-name") for index in range(2)])
    assert ["Ranks 0 and 1 both have local rank 0 on one-name" in str(error) for error in errors] == [True] * 2


@pytest.mark.parametrize("rank", [0, 1])
def test_the_same_rank_twice(start, rank):
    """The first process keeps the rank and the second ends at once, for both kinds of store."""
    with ExitStack() as stack:
        for environment in (task, by_hand):
            port = free_port() if environment is task else stack.enter_context(horovods_own_server())[0]
            size = 2 + rank  # a rank is missing, so that the first process waits
            waiting = [start(JOIN, environment(number, size, port)) for number in range(rank + 1)]
            for number in range(rank + 1):
                wait_for_claim(port, number, "distrain-7-0" if environment is task else "distrain")
            twice = start(JOIN, environment(rank, size, port))
            code, out, err = ended(twice)
            assert (code, out) == (5, "")
            assert f"Rank {rank} is there already: process {waiting[rank].pid} on {socket.gethostname()}" in err
            assert f"This is process {twice.pid}" in err
            missing = start(JOIN, environment(size - 1, size, port))
            assert [ended(process)[0] for process in (*waiting, missing)] == [0] * size


def test_the_same_rank_twice_at_the_same_moment(start):
    """In any order of their requests, a single process goes on, and no process waits forever."""
    with horovods_own_server() as (port, _):
        environ = by_hand(1, 2, port, DISTRAIN_RENDEZVOUS_SECONDS="5")
        ranks = [start(JOIN, environ), start(JOIN, environ), start(JOIN, {**environ, **by_hand(0, 2, port)})]
        codes = [ended(process)[0] for process in ranks]
        assert codes[2] == 0
        assert sorted(codes[:2]) == [0, 5]


def test_a_process_ends_if_another_overwrites_its_claim(start):
    with horovods_own_server() as (port, kept):
        first = start(JOIN, by_hand(1, 2, port))
        wait_for_claim(port, 1, "distrain")
        other = json.loads(kept["distrain"]["1"]) | {"token": "other", "process": 4711}
        kept["distrain"]["1"] = json.dumps(other).encode()
        code, _, err = ended(first)
        assert code == 5
        assert "Rank 1 is there already: process 4711" in err
        assert json.loads(kept["distrain"]["1"]) == other


def test_a_claim_that_is_lost_is_made_again(start):
    with horovods_own_server() as (port, kept):
        second = start(JOIN, by_hand(1, 2, port))
        wait_for_claim(port, 1, "distrain")
        kept.clear()
        first = start(JOIN, by_hand(0, 2, port))
        assert [ended(process)[0] for process in (first, second)] == [0, 0]


NOT_A_CLAIM = [
    b"",
    b"\x80\x04N.",
    b"[" * 40_000,
    b"7",
    b"{}",
    b'{"world": {}}',
    b'{"world": 7}',
    b'{"claims": [1]}',
    b"null",
]


@pytest.mark.parametrize("value", NOT_A_CLAIM)
def test_invalid_values_do_not_count_as_claims(value):
    fields = {"token": 1, "host": [], "process": "x", "address": None, "world": {"rank": "0"}}
    for content in (value, json.dumps(fields).encode()):
        with horovods_own_server() as (port, kept):
            kept["distrain"] = {"0": content, "1": content, "all": content}
            environs = [by_hand(rank, 2, port) for rank in range(2)]
            assert all_join(environs) == environs
            assert kept == {}


def test_a_verdict_of_an_earlier_run_does_not_count():
    with horovods_own_server() as (port, kept):
        old = {"token": "old", "host": "h", "process": 1, "address": "127.0.0.1", "world": {"rank": 0, "size": 2}}
        kept["distrain"] = {"all": json.dumps({"claims": [old, old], "error": "of long ago"}).encode()}
        environs = [by_hand(rank, 2, port) for rank in range(2)]
        assert all_join(environs) == environs


def test_horovodrun_that_is_gone():
    environ = by_hand(0, 2, free_port(), DISTRAIN_RENDEZVOUS_SECONDS="0.5")
    (error,) = all_join([environ])
    assert isinstance(error, RankError)
    assert "which horovodrun hosts, did not answer rank 0 within 0.5 s" in str(error)


def test_rank_0_that_is_killed_while_the_others_wait_and_starts_again(start):
    port = free_port()
    second = start(JOIN, task(1, 3, port))
    killed = start(JOIN, task(0, 3, port))
    wait_for_claim(port, 1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    others = [start(JOIN, task(rank, 3, port)) for rank in (0, 2)]
    assert [ended(process)[0] for process in (*others, second)] == [0, 0, 0]


def test_rank_0_that_is_lost_while_the_others_wait(start):
    port = free_port()
    killed = start(JOIN, task(0, 3, port))
    wait_for_claim(port, 0)
    second = start(JOIN, task(1, 3, port, DISTRAIN_RENDEZVOUS_SECONDS="3"))
    wait_for_claim(port, 1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    code, _, err = ended(second)
    assert code == 5
    assert "did not answer rank 1 within 3 s" in err
