"""Links and their frames, over real connections; the ranks are threads."""

from __future__ import annotations

import os
import select
import socket
import struct

import pytest
from threads_as_processes import on_all

from distrain.cluster import heartbeat
from distrain.cluster.heartbeat import Frame, Kind, RankConnection, connect_ranks

pytestmark = pytest.mark.timeout(60)


def wait_until_readable(link):
    assert select.select([link], [], [], 5)[0]


def test_many_ranks_connect_and_no_socket_is_inherited():
    tables = on_all(40, connect_ranks)
    assert sorted(tables[0]) == list(range(1, 40))
    assert all(list(table) == [0] and table[0].host == socket.gethostname() for table in tables[1:])
    links = [link for table in tables for link in table.values()]
    assert not any(os.get_inheritable(link.fileno()) for link in links)
    with pytest.raises(ConnectionRefusedError):  # rank 0 no longer listens
        socket.create_connection(tables[1][0]._connection.getpeername()[:2])
    for link in links:
        link.close()


@pytest.fixture
def ends():
    """Return a link and the plain socket of its peer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        link = RankConnection(1, "elsewhere", listener.accept()[0])
    yield link, peer
    link.close()
    peer.close()


def test_frames_arrive_complete_when_bytes_arrive_one_by_one(ends):
    link, peer = ends
    frames = [Frame(Kind.BEAT, step=-1), Frame(Kind.LEAVE, 255), Frame(Kind.BEAT, step=2**40)]
    content = b"".join(heartbeat._FRAME.pack(*frame) for frame in frames)
    arrived = []
    for index in range(len(content)):
        peer.sendall(content[index : index + 1])
        wait_until_readable(link)
        arrived += link.receive()
    assert arrived == frames
    assert link.receive() == []
    assert link.is_open
    peer.close()
    wait_until_readable(link)
    assert link.receive() == []
    assert not link.is_open


def test_an_invalid_frame_closes_a_link(ends):
    link, peer = ends
    peer.sendall(struct.pack("!BBq", 77, 0, 0))
    wait_until_readable(link)
    assert link.receive() == []
    assert not link.is_open


def test_beats_do_not_pile_up_when_the_peer_does_not_read(ends):
    link, _ = ends
    link._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    while not link._unsent:
        link.send(Frame(Kind.LEAVE, 5))
    unsent = len(link._unsent)
    for _ in range(100):
        link.send(Frame(Kind.BEAT))
    assert len(link._unsent) <= unsent
