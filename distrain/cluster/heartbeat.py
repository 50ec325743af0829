"""The links of the heartbeat: a TCP star around rank 0, and the frames on it.

Decides: which links a rank has, and what a frame looks like. Never: whether a rank was lost (`failure_detector.py`).

    links = connect_ranks(group)                 # rank 0: a link to every other rank; others: a link to rank 0
    links[0].send(Frame(Kind.BEAT, step=17))
    links[0].receive()                           # the frames that have arrived; never blocks
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
import struct
from enum import IntEnum
from typing import NamedTuple

from distrain.cluster.network import own_addresses
from distrain.cluster.process_group import ProcessGroup
from distrain.cluster.trusted_connections import accept_all, connect, listen
from distrain.errors import RankError

_FRAME = struct.Struct("!BBq")


class Kind(IntEnum):
    """What a frame says."""

    BEAT = 1  # the sender is alive, at this step
    FAILED = 2  # to rank 0: the sender is about to exit with this code; from rank 0: the receiver may print its error
    LEAVE = 3  # the receiver must exit with this code, without a message
    GOODBYE = 4  # the sender is done: the end of its connection is no loss


class Frame(NamedTuple):
    """10 bytes on the wire.

    Attributes:
        kind: what the frame says.
        code: exit code, 0..255.
        step: last step that the sender completed; -1 before the first.
    """

    kind: Kind
    code: int = 0
    step: int = -1


class RankConnection:
    """A trusted connection to another rank.

    Attributes:
        rank: number of the peer.
        host: host name of the peer.
        step: last step that the peer reported; -1 before the first.
        silent_beats: beats of this process since the peer's last frame.
        is_open: False once the stream has ended, failed, or carried an invalid frame.
    """

    def __init__(self, rank: int, host: str, connection: socket.socket) -> None:
        self.rank = rank
        self.host = host
        self.step = -1
        self.silent_beats = 0
        self.is_open = True
        self._connection = connection
        self._arrived = b""
        self._unsent = b""
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._connection.fileno()

    def send(self, frame: Frame) -> None:
        """Send without blocking. A beat is dropped while earlier bytes are unsent."""
        if frame.kind is not Kind.BEAT or not self._unsent:
            self._unsent += _FRAME.pack(*frame)
        # `receive` detects a broken connection, because the peer's last frames must be read first.
        with contextlib.suppress(OSError):
            self._unsent = self._unsent[self._connection.send(self._unsent) :]

    def receive(self) -> list[Frame]:
        """Return the complete frames that have arrived; reads at most 4 KiB."""
        try:
            content = self._connection.recv(4096)
            self.is_open = bool(content)
            content = self._arrived + content
            complete = len(content) - len(content) % _FRAME.size
            self._arrived = content[complete:]
            return [Frame(Kind(kind), *rest) for kind, *rest in _FRAME.iter_unpack(content[:complete])]
        except BlockingIOError:
            return []
        except (OSError, ValueError):
            self.is_open = False
            return []

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def connect_ranks(group: ProcessGroup) -> dict[int, RankConnection]:
    """Connect rank 0 with all other ranks. Every rank must call this; it takes at most about 20 s.

    Args:
        group: all ranks, at least 2. They exchange bytes twice.

    Returns:
        Links by rank: to all other ranks on rank 0, to rank 0 alone elsewhere.

    Raises:
        RankError: a rank could not connect. All ranks raise this error.
    """
    host, error = socket.gethostname(), ""
    connections: dict[int, socket.socket] = {}
    if group.is_chief:
        with listen(group.size) as listener:
            port, token = listener.getsockname()[1], secrets.token_bytes(16)
            offer = {"host": host, "port": port, "addresses": own_addresses(), "token": token.hex()}
            group.broadcast(json.dumps(offer).encode())
            connections = asyncio.run(accept_all(listener, group.size, token))
    else:
        offer = json.loads(group.broadcast(b""))
        try:
            connections[0] = asyncio.run(connect(group.rank, host, offer))
        except RankError as unreached:
            error = str(unreached)
    own = json.dumps({"host": host, "error": error}).encode()
    answers = [json.loads(answer) for answer in group.all_gather_bytes(own)]
    hosts = [answer["host"] for answer in answers]
    failed = [rank for rank, answer in enumerate(answers) if answer["error"]]
    if not failed:
        return {rank: RankConnection(rank, hosts[rank], connection) for rank, connection in connections.items()}
    for connection in connections.values():
        connection.close()
    first, others = failed[0], f" {len(failed) - 1} more ranks could not either." if len(failed) > 1 else ""
    raise RankError(
        f"rank {first} ({hosts[first]}) could not connect to rank 0 ({hosts[0]}): {answers[first]['error']}.{others} "
        "The failure detector of the ranks uses TCP, on a port that the system chooses. Open all ports between the "
        "machines of the run (firewall, security group, network policy), then start again.",
        reporting_rank=0,
    )
