"""Each process claims its rank on a store that all ranks reach.

Decides: whether the processes at the rendezvous are the ranks of one world. Never: starts or connects processes, or
hosts the store.

    client = StoreClient("192.0.2.7", 29400, "distrain", size=2)
    claims = claim_rank(client, world, "node1", token, deadline=time.monotonic() + 60, seconds=60)     # on every rank
    withdraw(client, world, token)

    PUT <scope>/<rank>                  the claim of a rank: token, host, process, world
    GET <scope>/<rank>                  another token means that another process claims the rank
    PUT <scope>/all      by rank 0      all claims, or why the run cannot start; every rank waits for this verdict

If a rank is missing, comes twice or has another world, all ranks end with one message. Horovod's own store serves as
well as `rendezvous_store.Store`: Horovod does not use the scope, and the scope is empty again afterwards.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from distrain.cluster.network import address_towards
from distrain.cluster.placement import check_placement
from distrain.cluster.rendezvous_store import REQUEST_SECONDS, max_value_bytes
from distrain.cluster.world import World
from distrain.errors import RankError

# The other ranks wait this much longer than rank 0, which knows the missing ranks; but at most twice as long.
GRACE_SECONDS = 10.0
# Rank 0 keeps the store open this long for slower ranks that have not yet joined or read the error.
LEAVING_SECONDS = 10.0


@dataclass(frozen=True)
class Claim:
    """A process that claims a rank.

    Attributes:
        token: random name of the process.
        host: host name.
        process: process id.
        address: IPv4 address of the host, on the route to the rendezvous.
        world: world of the process, according to its environment.
    """

    token: str
    host: str
    process: int
    address: str
    world: World


@dataclass(frozen=True)
class StoreClient:
    """A job's scope in a store; each call may raise `OSError` or `HTTPException`.

    Attributes:
        host: DNS name or IPv4 address of the store.
        port: TCP port of the store.
        scope: prefix of the job's paths.
        size: ranks of the job.
    """

    host: str
    port: int
    scope: str
    size: int

    def get(self, key: object) -> bytes | None:
        """Return the value of a key, or None."""
        return self._request("GET", key)

    def put(self, key: object, value: object) -> None:
        """Set a key to a value that JSON can hold."""
        if self._request("PUT", key, json.dumps(value).encode()) is None:
            raise http.client.HTTPException("it does not keep values")

    def delete(self, key: object) -> None:
        """Delete a key."""
        self._request("DELETE", key)

    def claim(self, rank: int) -> Claim | None:
        """Return the claim of a rank, or None."""
        return _parsed_claim(self.get(rank))

    def _request(self, method: str, key: object, body: bytes | None = None) -> bytes | None:
        # Horovod's core uses IPv4 only, so no IPv6 address may answer here.
        connection = http.client.HTTPConnection(socket.gethostbyname(self.host), self.port, timeout=REQUEST_SECONDS)
        try:
            connection.request(method, f"/{self.scope}/{key}", body)
            response = connection.getresponse()
            content = response.read(max_value_bytes(self.size))
        finally:
            connection.close()
        if response.status not in (200, 404):
            raise http.client.HTTPException(f"it answers with status {response.status}: it is no rendezvous")
        return content if response.status == 200 else None


def claim_rank(
    client: StoreClient, world: World, own_host: str, token: str, deadline: float, seconds: float
) -> list[Claim]:
    """Claim this process's rank and wait for the claims of all ranks.

    Args:
        client: the job's scope in the store.
        world: this process among all processes of the job.
        own_host: host name of this process.
        token: random name of this process.
        deadline: time by `time.monotonic` until which the store must answer.
        seconds: how long this process then waits for the other ranks.

    Returns:
        All claims, in rank order.

    Raises:
        RankError: the store does not answer, a rank is missing or comes twice, or the worlds differ.
    """
    is_claimed = False
    others: dict[int, Claim] = {}
    problem = ""
    while True:
        is_over = time.monotonic() > deadline  # read once, or rank 0 could give up before its own verdict
        try:
            if not is_claimed:
                other = client.claim(world.rank)
                if other and other.token != token:
                    raise claimed_twice(world, other)
                address = address_towards(socket.gethostbyname(client.host))
                own = Claim(token, own_host, os.getpid(), address, world)
                client.put(world.rank, asdict(own))
                deadline = time.monotonic() + seconds + (min(GRACE_SECONDS, seconds) if world.rank else 0)
                is_claimed, is_over = True, False
            if world.rank == 0:
                new = {rank: client.claim(rank) for rank in range(world.size) if rank not in others}
                others |= {rank: claim for rank, claim in new.items() if claim}
                if len(others) == world.size or is_over:
                    claims = [others[rank] for rank in sorted(others)]
                    client.put("all", {"claims": [asdict(c) for c in claims], "error": _judge(world, claims, seconds)})
            claims = _read_verdict(client, token)
            if claims:
                return claims
            other = client.claim(world.rank)
            if other and other.token != token:
                raise claimed_twice(world, other)
            is_claimed = other is not None
        except (OSError, http.client.HTTPException) as error:  # unknown name, no answer, or another job's store closed
            problem = str(error) or type(error).__name__
            is_claimed = False
        if is_over:
            raise _no_answer(client, world, seconds, is_claimed, problem)
        time.sleep(pause(world.size))  # until the deadline: the store cannot notify a rank


def withdraw(client: StoreClient, world: World, token: str) -> None:
    """Delete the claim of this process. Rank 0 waits for the other ranks, which may still read the verdict."""
    with suppress(OSError, http.client.HTTPException):
        claim = client.claim(world.rank)
        if not claim or claim.token != token:
            return
        if world.rank == 0:
            until = time.monotonic() + LEAVING_SECONDS
            present = list(range(1, world.size))
            while (present := [rank for rank in present if client.claim(rank)]) and time.monotonic() < until:
                time.sleep(pause(world.size))  # until the deadline: the store cannot notify a rank
            client.delete("all")
        client.delete(world.rank)


def _judge(world: World, claims: Sequence[Claim], seconds: float) -> str:
    """Return why these ranks cannot start, or ""."""
    missing = sorted(set(range(world.size)) - {claim.world.rank for claim in claims})
    if missing:
        shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        return (
            f"Rank(s) {shown} of {world.size} did not come to the rendezvous within {seconds:g} s. Read their "
            "output, and check that all were started. If they only need longer, set DISTRAIN_RENDEZVOUS_SECONDS."
        )
    try:
        check_placement([(claim.host, claim.world) for claim in claims])
    except RankError as error:
        return str(error)
    return ""


def _read_verdict(client: StoreClient, token: str) -> list[Claim]:
    """Return all claims once rank 0 has judged them; empty before, and for the verdict of an earlier run.

    Raises:
        RankError: the ranks cannot start.
    """
    try:
        verdict = json.loads(client.get("all") or b"{}")
        claims = [_claim_of(fields) for fields in verdict.get("claims", [])]
        error = str(verdict.get("error", ""))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return []
    if token not in (claim.token for claim in claims):
        return []
    if error:
        raise RankError(error, reporting_rank=0)
    return claims


def _parsed_claim(content: bytes | None) -> Claim | None:
    """Return the claim that `content` describes, or None if it describes none."""
    try:
        return _claim_of(json.loads(content)) if content else None
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None


def _claim_of(fields: dict[str, Any]) -> Claim:
    world = World(**fields["world"])
    claim = Claim(**{**fields, "world": world})
    numbers = (claim.process, world.rank, world.size, world.local_rank, world.local_size)
    texts = (claim.token, claim.host, claim.address, world.launcher)
    if not all(type(number) is int for number in numbers) or not all(type(text) is str for text in texts):
        raise ValueError("not a claim")
    return claim


def claimed_twice(world: World, other: Claim) -> RankError:
    """Return the error of the second process that claims a rank."""
    return RankError(
        f"Rank {world.rank} is there already: process {other.process} on {other.host[:80]}. This is process "
        f"{os.getpid()} on {socket.gethostname()}. Each rank is one process: start all of them once, by one launcher; "
        "or end the processes of an earlier start."
    )


def _no_answer(client: StoreClient, world: World, seconds: float, is_claimed: bool, problem: str) -> RankError:
    host = "horovodrun" if world.rendezvous is None else "rank 0"
    answer = "answers, but rank 0 did not come to it" if is_claimed else f"did not answer rank {world.rank}"
    return RankError(
        f"The rendezvous at {client.host}:{client.port}, which {host} hosts, {answer} within {seconds:g} s"
        f"{'' if is_claimed else f' ({problem})'}. Read the output of {host} and rank 0, and check the "
        "firewalls. If the start only needs longer, set DISTRAIN_RENDEZVOUS_SECONDS on every rank."
    )


def pause(size: int) -> float:
    """Return the seconds between two requests: many ranks ask less often, because one interpreter answers all."""
    return 0.1 + size / 500
