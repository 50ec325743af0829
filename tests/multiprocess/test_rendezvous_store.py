"""The store of the rendezvous: invalid requests of unknown peers, its limits, and its addresses."""

from __future__ import annotations

import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from free_ports import free_port
from rendezvous_ranks import JOIN, SECONDS, all_join, ended, get, task, wait_for_listener

from distrain.cluster.rendezvous_store import Store

INVALID_REQUESTS = [
    b"",
    b"\x00\xff\x16\x03\x01 no request at all\r\n\r\n",
    b"A" * 100_000,
    b"HEAD / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\n\r\n",
    b"POST /distrain-7-0/1 HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
    b"PUT /distrain-7-0/1 HTTP/1.1\r\n\r\n",
    b"PUT /distrain-7-0/1 HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"PUT /distrain-7-0/1 HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n",
    b"PUT /distrain-7-0/1 HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf",
    b"PUT /distrain-7-0/1 HTTP/1.1\r\nContent-Length: 4\r\n\r\n\x80\x04N.",
    b"PUT /distrain-7-0/all HTTP/1.1\r\nContent-Length: 40000\r\n\r\n" + b"[" * 40_000,
    b'PUT /distrain-7-0/1 HTTP/1.1\r\nContent-Length: 14\r\n\r\n{"token": null}',
    b'PUT /distrain-7-0/1 HTTP/1.1\r\nContent-Length: 13\r\n\r\n{"world": {}}',
    b"PUT /a/b/c HTTP/1.1\r\nContent-Length: 1\r\n\r\nx",
    b"DELETE /distrain-7-0/1 HTTP/1.1\r\n\r\n",
]


def test_an_unknown_peer_with_invalid_requests_does_no_harm(start):
    port = free_port()
    first = start(JOIN, task(0, 2, port))
    wait_for_listener(port)
    with ExitStack() as stack:
        values = [b"PUT /mine/%d HTTP/1.1\r\nContent-Length: 1\r\n\r\nx" % number for number in range(200)]
        for request in INVALID_REQUESTS + values:
            peer = stack.enter_context(
                socket.create_connection(("127.0.0.1", port), timeout=5, source_address=("127.0.0.2", 0))
            )
            peer.sendall(request)  # and stays connected
        for request in INVALID_REQUESTS:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
                peer.sendall(request)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not a close
        second = start(JOIN, task(1, 2, port))
        results = [ended(process) for process in (first, second)]
    assert [(code, err) for code, _, err in results] == [(0, "")] * 2


def status_of(port, request):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request)
        connection.settimeout(10)
        return connection.makefile("rb").readline().split()[1:2]


def test_the_store_has_limits():
    store = Store(("127.0.0.1", 0), size=2)
    port = store.server_address[1]
    threading.Thread(target=store.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        put = b"PUT /s/%s HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s"
        assert status_of(port, put % (b"k", 1, b"x")) == [b"200"]
        assert get(port, "/s/k") == b"x"
        assert get(port, "/s/other") is None
        assert status_of(port, b"PUT /s/k HTTP/1.1\r\nContent-Length: 70000\r\n\r\n") == [b"413"]
        assert status_of(port, put % (b"k" * 200, 1, b"x")) == [b"400"]
        assert status_of(port, b"DELETE /s/k HTTP/1.1\r\n\r\n") == [b"200"]
        assert get(port, "/s/k") is None
        assert [status_of(port, put % (b"%d" % n, 1, b"x")) for n in range(97)].count([b"507"]) == 1
        assert status_of(port, put % (b"0", 1, b"y")) == [b"200"]  # an existing key may change
    finally:
        store.shutdown()
        store.server_close()


def answers(address, port):
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(("hosts", "everywhere"), [(["a", "a"], False), (["a", "b"], True)])
def test_the_store_listens_where_other_ranks_look_and_only_while_they_join(hosts, everywhere):
    """Other hosts cannot reach a loopback address, so with several hosts the store listens on all addresses."""
    port = free_port()
    local = {"SLURM_STEP_TASKS_PER_NODE": "2"} if len(set(hosts)) == 1 else {"SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
    places = [
        {
            "HOROVOD_HOSTNAME": host,
            "SLURM_NODEID": sorted(set(hosts)).index(host),
            "SLURM_LOCALID": hosts[:rank].count(host),
        }
        for rank, host in enumerate(hosts)
    ]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(all_join, [task(0, 2, port, **local, **places[0])])
        wait_for_listener(port)
        assert answers("127.0.0.2", port) == everywhere
        second = all_join([task(1, 2, port, **local, **places[1])])
        assert not isinstance(first.result(SECONDS)[0], Exception), first.result()
        assert not isinstance(second[0], Exception), second
    assert not answers("127.0.0.1", port)
