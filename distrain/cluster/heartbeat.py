"""The connections of the heartbeat: a TCP star around rank 0, and the frames on it.

Decides: how ranks find rank 0 and prove that they belong to one run, and what a frame is. Never: who was lost.

    links = meet(group)           # rank 0: a link to every other rank; others: one to rank 0
    links[0].send(Frame(Kind.BEAT, step=17))
    links[0].receive()                           # the frames that have arrived; never blocks

Proof is by challenge and response: each side draws a nonce and answers with HMAC-SHA256 (RFC 2104) over both, keyed by
a random token that only the ranks of this run have. The role is signed too, so that no answer can be sent back. All
that is read before the proof has a fixed size and a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import secrets
import socket
import struct
import sys
from collections.abc import Iterator
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from distrain.cluster.process_group import ProcessGroup
from distrain.errors import RankError

CONNECT_SECONDS = 15.0  # a rank tries rank 0's addresses for so long
ACCEPT_SECONDS = 18.0  # rank 0 waits a little longer, but less than the 30 s of Gloo's collectives
GREETING_SECONDS = 5.0
RETRY_SECONDS = 0.2
SPARE_GREETINGS = 64  # connections that may be unproven at a time, beyond one a rank

_FRAME = struct.Struct("!BBq")
_HELLO = struct.Struct("!8sI16s")
_MAGIC = b"distrain"
_NONCE_BYTES = 16
_PROOF_BYTES = 32
_WELCOME = b"\x01"


class Kind(IntEnum):
    """What a frame says."""

    BEAT = 1  # alive, at this step
    FAILED = 2  # to rank 0: the sender is about to leave with this code; back: it may speak
    LEAVE = 3  # leave with this code, silently
    GOODBYE = 4  # the sender is done; that its connection closes is no loss


class Frame(NamedTuple):
    """10 bytes on the wire. `code`: 0..255; `step`: -1 before the first."""

    kind: Kind
    code: int = 0
    step: int = -1


class Link:
    """A proven connection to another rank.

    Attributes:
        rank, host: of the other side.
        step: the last it told, -1 before the first.
        silent_beats: own beats since it was last heard.
        is_open: false once its stream has ended, failed or turned to rubbish.
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
        """For a selector."""
        return self._connection.fileno()

    def send(self, frame: Frame) -> None:
        """Send without waiting. A beat is left out while the frame before it has not gone out."""
        if frame.kind is not Kind.BEAT or not self._unsent:
            self._unsent += _FRAME.pack(*frame)
        # A broken connection shows when it is read: what the other side said last comes first.
        with contextlib.suppress(OSError):
            self._unsent = self._unsent[self._connection.send(self._unsent) :]

    def receive(self) -> list[Frame]:
        """The whole frames that have arrived; reads at most 4 KiB."""
        try:
            content = self._connection.recv(4096)
            self.is_open = bool(content)
            content = self._arrived + content
            whole = len(content) - len(content) % _FRAME.size
            self._arrived = content[whole:]
            return [Frame(Kind(kind), *rest) for kind, *rest in _FRAME.iter_unpack(content[:whole])]
        except BlockingIOError:
            return []
        except (OSError, ValueError):
            self.is_open = False
            return []

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def meet(group: ProcessGroup) -> dict[int, Link]:
    """Connect rank 0 with all others. Every rank calls it; takes at most about 20 s beside the exchanges.

    Args:
        group: all ranks, 2 or more; used twice.

    Returns:
        Links by rank: to all others on rank 0, to rank 0 alone elsewhere.

    Raises:
        RankError: a rank could not connect; raised on all alike.
    """
    rank, size = group.rank, group.size
    host, error = socket.gethostname(), ""
    connections: dict[int, socket.socket] = {}
    if rank == 0:
        with _listen(size) as listener:
            port, token = listener.getsockname()[1], secrets.token_bytes(16)
            offer = {"host": host, "port": port, "addresses": own_addresses(), "token": token.hex()}
            group.broadcast(json.dumps(offer).encode())
            connections = asyncio.run(_accept_all(listener, size, token))
    else:
        offer = json.loads(group.broadcast(b""))
        try:
            connections[0] = asyncio.run(_connect(rank, host, offer))
        except RankError as unreached:
            error = str(unreached)
    own = json.dumps({"host": host, "error": error}).encode()
    answers = [json.loads(answer) for answer in group.all_gather_bytes(own)]
    hosts = [answer["host"] for answer in answers]
    failed = [number for number, answer in enumerate(answers) if answer["error"]]
    if not failed:
        return {number: Link(number, hosts[number], connection) for number, connection in connections.items()}
    for connection in connections.values():
        connection.close()
    first, others = failed[0], f" {len(failed) - 1} more ranks could not either." if len(failed) > 1 else ""
    failure = RankError(
        f"rank {first} ({hosts[first]}) could not connect to rank 0 ({hosts[0]}): {answers[first]['error']}.{others} "
        "The ranks watch each other over TCP, on a port that the system chooses. Open all ports between the machines "
        "of the run (firewall, security group, network policy), then start again."
    )
    failure.reporting_rank = 0
    raise failure


def own_addresses() -> list[str]:
    """The addresses at which other machines may reach this one: IPv4 and global IPv6, without loopback."""
    found = [*_ipv4_addresses(), *_global_ipv6_addresses()]
    if not found:
        with contextlib.suppress(OSError):
            found = [str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None)]
    return [address for address in dict.fromkeys(found) if address != "::1" and not address.startswith("127.")]


def _ipv4_addresses() -> Iterator[str]:
    if sys.platform != "linux":
        return
    import fcntl

    siocgifaddr = 0x8915  # netdevice(7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without such an address
                answer = fcntl.ioctl(probe, siocgifaddr, struct.pack("256s", name.encode()))
                yield socket.inet_ntoa(answer[20:24])


def _global_ipv6_addresses() -> Iterator[str]:
    with contextlib.suppress(OSError):  # not Linux, or no IPv6
        for line in Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines():
            digits, _, _, scope, *_ = line.split()
            if scope == "00":
                yield socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))


def _listen(size: int) -> socket.socket:
    backlog = size + SPARE_GREETINGS
    try:
        return socket.create_server(("", 0), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)
    except (OSError, ValueError):  # no IPv6
        return socket.create_server(("", 0), backlog=backlog)


async def _accept_all(listener: socket.socket, size: int, token: bytes) -> dict[int, socket.socket]:
    """The proven connections of all other ranks, or of those that came in time. Strangers are dropped."""
    found: dict[int, socket.socket] = {}
    pending: dict[asyncio.Future[int | None], None] = {}  # greetings in the order of their coming
    all_found = asyncio.Event()

    def settle(connection: socket.socket, greeting: asyncio.Future[int | None]) -> None:
        del pending[greeting]
        rank = None if greeting.cancelled() or greeting.exception() else greeting.result()
        if rank is None:
            connection.close()
            return
        if rank in found:  # that rank gave up its first attempt
            found[rank].close()
        found[rank] = connection
        if len(found) == size - 1:
            all_found.set()

    async def accept() -> None:
        while True:
            try:
                connection, _ = await asyncio.get_running_loop().sock_accept(listener)
            except OSError:  # out of file descriptors: greetings that end give theirs back
                await asyncio.sleep(RETRY_SECONDS)
                continue
            greeting = asyncio.ensure_future(asyncio.wait_for(_admit(connection, size, token), GREETING_SECONDS))
            pending[greeting] = None
            greeting.add_done_callback(partial(settle, connection))
            if len(pending) > size + SPARE_GREETINGS:
                next(iter(pending)).cancel()  # the oldest: whoever belongs here needs two round trips only

    listener.setblocking(False)
    accepting = asyncio.create_task(accept())
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(all_found.wait(), ACCEPT_SECONDS)
    unfinished: list[asyncio.Future[Any]] = [accepting, *pending]
    for task in unfinished:
        task.cancel()
    await asyncio.gather(*unfinished, return_exceptions=True)
    return found


async def _admit(connection: socket.socket, size: int, token: bytes) -> int | None:
    """Greet whoever has connected to rank 0; returns its rank once it has proven it, None for a stranger."""
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    magic, rank, nonce = _HELLO.unpack(await _read(connection, _HELLO.size))
    if magic != _MAGIC or not 0 < rank < size:
        return None
    nonces = nonce + secrets.token_bytes(_NONCE_BYTES)
    await loop.sock_sendall(connection, nonces[_NONCE_BYTES:] + _proof(token, b"rank 0", rank, nonces))
    proof = await _read(connection, _PROOF_BYTES)
    if not hmac.compare_digest(proof, _proof(token, b"others", rank, nonces)):
        return None
    await loop.sock_sendall(connection, _WELCOME)
    return rank


async def _connect(rank: int, host: str, offer: dict[str, Any]) -> socket.socket:
    """A proven connection to rank 0, at the first of its addresses that leads there.

    Args:
        rank: of this process.
        host: its name; where rank 0 has the same, the loopback address comes first.
        offer: rank 0's `host`, `port`, `addresses` and `token`.

    Raises:
        RankError: none does within `CONNECT_SECONDS`; the text says why for each.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + CONNECT_SECONDS
    addresses = ["127.0.0.1"] * (host == offer["host"]) + list(offer["addresses"])
    reasons = dict.fromkeys(addresses, "not tried")
    while loop.time() < deadline:
        for number, address in enumerate(addresses):
            # An address that swallows packets must leave time for those behind it.
            share = (deadline - loop.time()) / (len(addresses) - number)
            connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
            try:
                await asyncio.wait_for(_introduce(connection, rank, address, offer), min(GREETING_SECONDS, share))
                return connection
            except TimeoutError:
                if reasons[address] == "not tried":  # the last attempt has little time; an answer before it says more
                    reasons[address] = "no answer"
            except OSError as error:
                reasons[address] = os.strerror(error.errno) if error.errno else str(error)
            connection.close()
        await asyncio.sleep(RETRY_SECONDS)
    tried = "; ".join(f"{address}: {reason}" for address, reason in reasons.items()) or "it has no address"
    raise RankError(f"tried port {offer['port']} for {CONNECT_SECONDS:g} s ({tried})")


async def _introduce(connection: socket.socket, rank: int, address: str, offer: dict[str, Any]) -> None:
    """Connect, prove to be `rank`, and have the other side prove to be rank 0; an `OSError` where it is not."""
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    token, nonce = bytes.fromhex(offer["token"]), secrets.token_bytes(_NONCE_BYTES)
    await loop.sock_connect(connection, (address, offer["port"]))
    await loop.sock_sendall(connection, _HELLO.pack(_MAGIC, rank, nonce))
    answer = await _read(connection, _NONCE_BYTES + _PROOF_BYTES)
    nonces, proof = nonce + answer[:_NONCE_BYTES], answer[_NONCE_BYTES:]
    if not hmac.compare_digest(proof, _proof(token, b"rank 0", rank, nonces)):
        raise OSError("somebody else answered there")
    await loop.sock_sendall(connection, _proof(token, b"others", rank, nonces))
    await _read(connection, len(_WELCOME))


async def _read(connection: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        more = await asyncio.get_running_loop().sock_recv(connection, count - len(content))
        if not more:
            raise OSError("the connection was closed")
        content += more
    return content


def _proof(token: bytes, role: bytes, rank: int, nonces: bytes) -> bytes:
    return hmac.digest(token, role + rank.to_bytes(4, "big") + nonces, "sha256")
