"""TCP connections between rank 0 and the other ranks, after each side has proved that it belongs to the run.

Decides: how a rank reaches rank 0, how both sides prove themselves, and how long that may take. Never: what the ranks
send afterwards.

    connections = asyncio.run(accept_all(listener, size, token))        # on rank 0
    connection = asyncio.run(connect(rank, host, offer))                # on another rank

The proof is a challenge and a response. Each side draws a nonce and answers with HMAC-SHA256 (RFC 2104) over both
nonces. The key is a random token that only the ranks of this run have. The signature covers the role, so that a peer
cannot send an answer back. Everything that a rank reads before the proof has a fixed size and a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import secrets
import socket
import struct
from functools import partial
from typing import Any

from distrain.errors import RankError

CONNECT_SECONDS = 15.0  # a rank tries the addresses of rank 0 for this long
ACCEPT_SECONDS = 18.0  # longer than a rank tries, but less than the 30 s after which Gloo's collectives give up
HANDSHAKE_SECONDS = 5.0
RETRY_SECONDS = 0.2
SPARE_HANDSHAKES = 64  # unproven connections that rank 0 holds at a time, in addition to one for each rank

_HELLO = struct.Struct("!8sI16s")
_MAGIC = b"distrain"
_NONCE_BYTES = 16
_PROOF_BYTES = 32
_WELCOME = b"\x01"


def listen(size: int) -> socket.socket:
    """Return a socket that listens on a free port, on all addresses of this machine."""
    backlog = size + SPARE_HANDSHAKES
    try:
        return socket.create_server(("", 0), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)
    except (OSError, ValueError):  # no IPv6
        return socket.create_server(("", 0), backlog=backlog)


async def accept_all(listener: socket.socket, size: int, token: bytes) -> dict[int, socket.socket]:
    """Return the proven connections by rank: of all other ranks, or of those that came within `ACCEPT_SECONDS`.

    Args:
        listener: of `listen`.
        size: ranks of the run.
        token: the key of the run.
    """
    found: dict[int, socket.socket] = {}
    pending: dict[asyncio.Future[int | None], None] = {}  # handshakes, the oldest first
    all_found = asyncio.Event()

    def settle(connection: socket.socket, handshake: asyncio.Future[int | None]) -> None:
        del pending[handshake]
        rank = None if handshake.cancelled() or handshake.exception() else handshake.result()
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
            except OSError:  # out of file descriptors: handshakes that end free theirs
                await asyncio.sleep(RETRY_SECONDS)
                continue
            handshake = asyncio.ensure_future(asyncio.wait_for(_admit(connection, size, token), HANDSHAKE_SECONDS))
            pending[handshake] = None
            handshake.add_done_callback(partial(settle, connection))
            if len(pending) > size + SPARE_HANDSHAKES:
                next(iter(pending)).cancel()  # the oldest is no rank, which needs two round trips only

    listener.setblocking(False)
    accepting = asyncio.create_task(accept())
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(all_found.wait(), ACCEPT_SECONDS)
    unfinished: list[asyncio.Future[Any]] = [accepting, *pending]
    for task in unfinished:
        task.cancel()
    await asyncio.gather(*unfinished, return_exceptions=True)
    return found


async def connect(rank: int, host: str, offer: dict[str, Any]) -> socket.socket:
    """Return a proven connection to rank 0, at the first of its addresses that leads there.

    Args:
        rank: number of this process.
        host: host name of this process. If rank 0 has the same name, the loopback address comes first.
        offer: `host`, `port`, `addresses` and `token` of rank 0.

    Raises:
        RankError: no address led to rank 0 within `CONNECT_SECONDS`. The message gives the reason for each address.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + CONNECT_SECONDS
    addresses = ["127.0.0.1"] * (host == offer["host"]) + list(offer["addresses"])
    reasons = dict.fromkeys(addresses, "not tried")
    while loop.time() < deadline:
        for index, address in enumerate(addresses):
            # An address that drops packets must leave time for the addresses after it.
            seconds = (deadline - loop.time()) / (len(addresses) - index)
            connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
            try:
                await asyncio.wait_for(_introduce(connection, rank, address, offer), min(HANDSHAKE_SECONDS, seconds))
                return connection
            except TimeoutError:
                if reasons[address] == "not tried":  # keep an earlier reason: the last attempt has little time
                    reasons[address] = "no answer"
            except OSError as error:
                reasons[address] = os.strerror(error.errno) if error.errno else str(error)
            connection.close()
        await asyncio.sleep(RETRY_SECONDS)
    tried = "; ".join(f"{address}: {reason}" for address, reason in reasons.items()) or "it has no address"
    raise RankError(f"tried port {offer['port']} for {CONNECT_SECONDS:g} s ({tried})")


async def _admit(connection: socket.socket, size: int, token: bytes) -> int | None:
    """Do rank 0's side of the handshake; return the rank that the peer proved, or None for an unknown peer."""
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


async def _introduce(connection: socket.socket, rank: int, address: str, offer: dict[str, Any]) -> None:
    """Do another rank's side of the handshake.

    Raises:
        OSError: nobody answers at the address, or the peer cannot prove that it is rank 0.
    """
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    token, nonce = bytes.fromhex(offer["token"]), secrets.token_bytes(_NONCE_BYTES)
    await loop.sock_connect(connection, (address, offer["port"]))
    await loop.sock_sendall(connection, _HELLO.pack(_MAGIC, rank, nonce))
    answer = await _read(connection, _NONCE_BYTES + _PROOF_BYTES)
    nonces, proof = nonce + answer[:_NONCE_BYTES], answer[_NONCE_BYTES:]
    if not hmac.compare_digest(proof, _proof(token, b"rank 0", rank, nonces)):
        raise OSError("another program answered there")
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
