"""How ranks find and trust each other, and the frames between them: real connections.

Threads take the place of processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from threads_as_processes import FunctionGroup

from distrain.cluster import heartbeat as wire
from distrain.cluster.heartbeat import Frame, Kind, Link, meet, own_addresses
from distrain.errors import RankError

pytestmark = pytest.mark.timeout(60)
HOST = socket.gethostname()


def meet_all(size, change_offer=None):
    """What `meet` gives on each rank. `change_offer(rank, offer)` sees rank 0's offer before each other rank."""
    barrier, table = threading.Barrier(size), [b""] * size

    def run(rank):
        calls = iter(range(2))

        def all_gather_bytes(content):
            table[rank] = content
            barrier.wait()
            answers = list(table)
            barrier.wait()
            if next(calls) == 0 and rank > 0 and change_offer:
                answers[0] = json.dumps(change_offer(rank, json.loads(answers[0]))).encode()
            return answers

        try:
            return meet(FunctionGroup(rank, size, all_gather_bytes))
        except RankError as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))


def close(tables):
    for table in tables:
        if isinstance(table, dict):
            for link in table.values():
                link.close()


def test_many_ranks_meet_and_their_sockets_are_not_inherited():
    tables = meet_all(40)
    assert sorted(tables[0]) == list(range(1, 40))
    assert all(list(table) == [0] and table[0].host == HOST for table in tables[1:])
    assert not any(os.get_inheritable(link.fileno()) for table in tables for link in table.values())
    with pytest.raises(ConnectionRefusedError):  # nobody is let in later
        socket.create_connection(tables[1][0]._connection.getpeername()[:2])
    close(tables)


def test_strangers_do_no_harm(monkeypatch):
    monkeypatch.setattr(wire, "GREETING_SECONDS", 30.0)
    strangers = []

    def crowd(rank, offer):
        if rank == 1:
            hello = wire._HELLO.pack(b"distrain", 2, bytes(16))
            for content in (b"GET / HTTP/1.1\r\n\r\n" * 9, b"dis", hello, wire._HELLO.pack(b"distrain", 9, bytes(16))):
                strangers.append(socket.create_connection(("127.0.0.1", offer["port"])))
                strangers[-1].sendall(content)
            assert len(strangers[2].recv(100)) == 48
            strangers[2].sendall(bytes(32))  # no proof
            for _ in range(100):  # more than may wait
                strangers.append(socket.create_connection(("127.0.0.1", offer["port"])))
            assert is_at_end(strangers[1])  # the oldest has gone long before its time was up
        return offer

    tables = meet_all(3, crowd)
    assert sorted(tables[0]) == [1, 2]
    for frame in (Frame(Kind.BEAT, step=2), Frame(Kind.FAILED, 3)):  # these are the ranks themselves
        tables[2][0].send(frame)
    wait_until_readable(tables[0][2])
    assert tables[0][2].receive()[0] == Frame(Kind.BEAT, step=2)
    for stranger in strangers:  # all were shown the door
        stranger.settimeout(5)
        assert is_at_end(stranger)
        stranger.close()
    close(tables)


def test_a_stranger_that_says_nothing_is_dropped_in_time(monkeypatch):
    monkeypatch.setattr(wire, "GREETING_SECONDS", 0.5)

    def visit(rank, offer):
        if rank == 1:
            with socket.create_connection(("127.0.0.1", offer["port"])) as stranger:
                assert is_at_end(stranger)
        return offer

    tables = meet_all(2, visit)
    assert list(tables[0]) == [1]
    close(tables)


def is_at_end(connection):
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def wait_until_readable(link):
    assert select.select([link], [], [], 5)[0]


def test_ranks_of_another_run_are_refused_and_all_ranks_say_so(monkeypatch):
    monkeypatch.setattr(wire, "CONNECT_SECONDS", 2.0)
    monkeypatch.setattr(wire, "ACCEPT_SECONDS", 3.0)
    tables = meet_all(3, lambda rank, offer: {**offer, "token": "00" * 16} if rank == 2 else offer)
    assert len({str(error) for error in tables}) == 1
    text = str(tables[0])
    assert isinstance(tables[0], RankError)
    assert f"rank 2 ({HOST}) could not connect to rank 0 ({HOST}): tried port" in text
    assert "127.0.0.1: somebody else answered there" in text
    assert "Open all ports" in text


def test_rank_0_refuses_whom_it_cannot_trust():
    """The other way round: a rank that believes rank 0 anyway, but cannot prove itself."""
    with wire._listen(2) as listener:
        port = listener.getsockname()[1]
        accepted = {}

        def accept():
            accepted.update(asyncio.run(wire._accept_all(listener, 2, b"t" * 16)))

        thread = threading.Thread(target=accept)
        thread.start()
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(wire._HELLO.pack(b"distrain", 1, bytes(16)))
            answer = stranger.recv(48)
            stranger.sendall(answer[16:])  # its own proof, sent back
            assert is_at_end(stranger)
        offer = {"host": HOST, "port": port, "addresses": [], "token": (b"t" * 16).hex()}
        connection = asyncio.run(wire._connect(1, HOST, offer))
        thread.join()
        assert connection.getsockname()[1] == accepted[1].getpeername()[1]
        connection.close()
        accepted[1].close()


def test_an_address_that_swallows_packets_leaves_time_for_the_others(monkeypatch):
    """Nobody takes connections from the first address: its backlog is full."""
    monkeypatch.setattr(wire, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(wire, "ACCEPT_SECONDS", 2.0)  # less than GREETING_SECONDS
    with socket.create_server(("127.0.0.2", 0), backlog=0) as full:
        port = full.getsockname()[1]
        with socket.create_connection(("127.0.0.2", port)), socket.create_server(("127.0.0.3", port)) as listener:
            accepted = {}
            thread = threading.Thread(
                target=lambda: accepted.update(asyncio.run(wire._accept_all(listener, 2, b"t" * 16)))
            )
            thread.start()
            addresses = ["127.0.0.2", "127.0.0.4", "127.0.0.3"]
            offer = {"host": "elsewhere", "port": port, "addresses": addresses, "token": (b"t" * 16).hex()}
            asyncio.run(wire._connect(1, HOST, offer)).close()
            thread.join()
            accepted[1].close()
            with pytest.raises(RankError, match=r"127.0.0.2: no answer; 127.0.0.4: Connection refused"):
                asyncio.run(wire._connect(1, HOST, {**offer, "addresses": addresses[:2]}))


def test_own_addresses_are_of_this_machine_and_no_loopback():
    for address in own_addresses():
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))
        assert not address.startswith("127.")


@pytest.fixture
def ends():
    """A link and the plain socket at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        other = socket.create_connection(listener.getsockname())
        link = Link(1, "elsewhere", listener.accept()[0])
    yield link, other
    link.close()
    other.close()


def test_frames_arrive_whole_whatever_the_pieces(ends):
    link, other = ends
    frames = [Frame(Kind.BEAT, step=-1), Frame(Kind.LEAVE, 255), Frame(Kind.BEAT, step=2**40)]
    content = b"".join(wire._FRAME.pack(*frame) for frame in frames)
    arrived = []
    for number in range(len(content)):
        other.sendall(content[number : number + 1])
        wait_until_readable(link)
        arrived += link.receive()
    assert arrived == frames
    assert link.receive() == []
    assert link.is_open
    other.close()
    wait_until_readable(link)
    assert link.receive() == []
    assert not link.is_open


def test_rubbish_closes_a_link(ends):
    link, other = ends
    other.sendall(struct.pack("!BBq", 77, 0, 0))
    wait_until_readable(link)
    assert link.receive() == []
    assert not link.is_open


def test_beats_do_not_pile_up_where_nobody_reads(ends):
    link, _ = ends
    link._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    while not link._unsent:
        link.send(Frame(Kind.LEAVE, 5))
    unsent = len(link._unsent)
    for _ in range(100):
        link.send(Frame(Kind.BEAT))
    assert len(link._unsent) <= unsent
