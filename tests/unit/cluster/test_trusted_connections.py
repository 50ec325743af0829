"""How ranks reach rank 0 and prove themselves, over real connections; the ranks are threads."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import threading
from contextlib import contextmanager

import pytest
from threads_as_processes import FunctionGroup, on_all

from distrain.cluster import trusted_connections
from distrain.cluster.heartbeat import Frame, Kind, connect_ranks
from distrain.cluster.trusted_connections import accept_all, connect, listen
from distrain.errors import RankError

pytestmark = pytest.mark.timeout(60)
HOST = socket.gethostname()
TOKEN = b"t" * 16


def connect_all(size, change_offer):
    """Return the links or the error of each rank, which receives `change_offer(rank, offer)` as the offer."""

    def rank(process):
        def exchange(content):
            received = process.all_gather_bytes(content)
            if process.rank > 0 and content == b"":
                received[0] = json.dumps(change_offer(process.rank, json.loads(received[0]))).encode()
            return received

        return connect_ranks(FunctionGroup(process.rank, size, exchange))

    return on_all(size, rank)


def close(tables):
    for table in tables:
        for link in table.values():
            link.close()


def is_at_end(connection):
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_unknown_peers_do_no_harm(monkeypatch):
    monkeypatch.setattr(trusted_connections, "HANDSHAKE_SECONDS", 30.0)
    peers = []

    def crowd(rank, offer):
        if rank == 1:
            hellos = [trusted_connections._HELLO.pack(b"distrain", number, bytes(16)) for number in (2, 9)]
            for content in (b"GET / HTTP/1.1\r\n\r\n" * 9, b"dis", *hellos):
                peers.append(socket.create_connection(("127.0.0.1", offer["port"])))
                peers[-1].sendall(content)
            assert len(peers[2].recv(100)) == 48
            peers[2].sendall(bytes(32))  # no proof
            for _ in range(300):  # the kernel may lose a connection before rank 0 accepts it
                peers.append(socket.create_connection(("127.0.0.1", offer["port"])))
                if select.select([peers[1]], [], [], 0)[0]:
                    break
            assert is_at_end(peers[1])  # rank 0 dropped the oldest long before its deadline
            assert len(peers) > trusted_connections.SPARE_HANDSHAKES
        return offer

    tables = connect_all(3, crowd)
    assert sorted(tables[0]) == [1, 2]
    for frame in (Frame(Kind.BEAT, step=2), Frame(Kind.FAILED, 3)):  # the links lead to the ranks
        tables[2][0].send(frame)
    assert select.select([tables[0][2]], [], [], 5)[0]
    assert tables[0][2].receive()[0] == Frame(Kind.BEAT, step=2)
    for peer in peers:  # rank 0 closed all of them
        peer.settimeout(5)
        assert is_at_end(peer)
        peer.close()
    close(tables)


def test_a_silent_peer_is_dropped_in_time(monkeypatch):
    monkeypatch.setattr(trusted_connections, "HANDSHAKE_SECONDS", 0.5)

    def visit(rank, offer):
        with socket.create_connection(("127.0.0.1", offer["port"])) as peer:
            assert is_at_end(peer)
        return offer

    tables = connect_all(2, visit)
    assert list(tables[0]) == [1]
    close(tables)


def test_ranks_of_another_run_are_refused_and_all_ranks_raise_so(monkeypatch):
    monkeypatch.setattr(trusted_connections, "CONNECT_SECONDS", 2.0)
    monkeypatch.setattr(trusted_connections, "ACCEPT_SECONDS", 3.0)
    errors = connect_all(3, lambda rank, offer: {**offer, "token": "00" * 16} if rank == 2 else offer)
    assert len({str(error) for error in errors}) == 1
    assert {type(error) for error in errors} == {RankError}
    assert {error.reporting_rank for error in errors} == {0}
    text = str(errors[0])
    assert f"rank 2 ({HOST}) could not connect to rank 0 ({HOST}): tried port" in text
    assert "127.0.0.1: another program answered there" in text
    assert "Open all ports" in text


@contextmanager
def accepting(listener):
    """In the context, a thread accepts rank 1 as rank 0; afterwards the dictionary holds the connection of rank 1."""
    accepted = {}
    thread = threading.Thread(target=lambda: accepted.update(asyncio.run(accept_all(listener, 2, TOKEN))))
    thread.start()
    yield accepted
    thread.join()


def test_rank_0_refuses_a_peer_that_sends_the_proof_back():
    with listen(2) as listener:
        port = listener.getsockname()[1]
        with accepting(listener) as accepted:
            with socket.create_connection(("127.0.0.1", port)) as peer:
                peer.sendall(trusted_connections._HELLO.pack(b"distrain", 1, bytes(16)))
                answer = peer.recv(48)
                peer.sendall(answer[16:])
                assert is_at_end(peer)
            offer = {"host": HOST, "port": port, "addresses": [], "token": TOKEN.hex()}
            connection = asyncio.run(connect(1, HOST, offer))
        assert connection.getsockname()[1] == accepted[1].getpeername()[1]
        connection.close()
        accepted[1].close()


def test_an_address_that_drops_packets_leaves_time_for_the_others(monkeypatch):
    """The first address accepts no connection, because its backlog is full."""
    monkeypatch.setattr(trusted_connections, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(trusted_connections, "ACCEPT_SECONDS", 2.0)  # less than HANDSHAKE_SECONDS
    with socket.create_server(("127.0.0.2", 0), backlog=0) as full:
        port = full.getsockname()[1]
        with socket.create_connection(("127.0.0.2", port)), socket.create_server(("127.0.0.3", port)) as listener:
            addresses = ["127.0.0.2", "127.0.0.4", "127.0.0.3"]
            offer = {"host": "elsewhere", "port": port, "addresses": addresses, "token": TOKEN.hex()}
            with accepting(listener) as accepted:
                asyncio.run(connect(1, HOST, offer)).close()
            accepted[1].close()
            with pytest.raises(RankError, match=r"127.0.0.2: no answer; 127.0.0.4: Connection refused"):
                asyncio.run(connect(1, HOST, {**offer, "addresses": addresses[:2]}))
