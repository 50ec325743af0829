"""Which process is which rank: claims on a store that all ranks reach.

Decides: whether the processes that came are the ranks of one world. Never: starts, hosts or joins anything.

    board = Board("192.0.2.7", 29400, "distrain", size=2)
    claims = meet(board, world, "node1", token, deadline=time.monotonic() + 60, seconds=60)     # on every rank
    leave(board, world, token)

    PUT <scope>/<rank>                  who claims this rank: a token, host, process, world
    GET <scope>/<rank>                  another token: somebody else claims the same rank
    PUT <scope>/all      by rank 0      all claims, or why the run cannot start; everybody waits for it

So a rank that does not come, comes twice or believes in another world ends all of them with one message. Horovod's own
store serves as well as `rendezvous_store.Store`: the scope is not one of Horovod's, and is empty again afterwards.
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

from distrain.cluster.placement import check_placement
from distrain.cluster.rendezvous_store import REQUEST_SECONDS, largest_value
from distrain.cluster.world import World
from distrain.errors import RankError

# The others wait so much longer than rank 0, which knows better who is missing; but not more than twice as long.
GRACE_SECONDS = 10.0
# Rank 0 stays this long for slower ranks that have not joined, or not read the error.
LEAVING_SECONDS = 10.0


@dataclass(frozen=True)
class Claim:
    """Who says that it is a rank."""

    token: str
    host: str
    process: int
    address: str  # as the rendezvous sees it
    world: World


@dataclass(frozen=True)
class Board:
    """The part of a store that belongs to this job; each call may raise OSError or HTTPException."""

    host: str
    port: int
    scope: str
    size: int

    def get(self, key: object) -> bytes | None:
        """The value of a key; None where it has none."""
        return self._request("GET", key)

    def put(self, key: object, value: object) -> None:
        """Set a key to a value that JSON can hold."""
        if self._request("PUT", key, json.dumps(value).encode()) is None:
            raise http.client.HTTPException("it does not keep what it is given")

    def delete(self, key: object) -> None:
        """Forget a key."""
        self._request("DELETE", key)

    def claim(self, rank: int) -> Claim | None:
        """Who claims a rank; None where nobody has."""
        return _parsed_claim(self.get(rank))

    def _request(self, method: str, key: object, body: bytes | None = None) -> bytes | None:
        # Horovod's core speaks IPv4 only; so no other address may answer here.
        connection = http.client.HTTPConnection(socket.gethostbyname(self.host), self.port, timeout=REQUEST_SECONDS)
        try:
            connection.request(method, f"/{self.scope}/{key}", body)
            response = connection.getresponse()
            content = response.read(largest_value(self.size))
        finally:
            connection.close()
        if response.status not in (200, 404):
            raise http.client.HTTPException(f"it answers with status {response.status}: it is no rendezvous")
        return content if response.status == 200 else None


def meet(board: Board, world: World, own_host: str, token: str, deadline: float, seconds: float) -> list[Claim]:
    """Claim the own rank and wait for the others; all claims in rank order."""
    is_claimed = False
    others: dict[int, Claim] = {}
    trouble = ""
    while True:
        is_over = time.monotonic() > deadline  # one look a turn: rank 0 must not give up between it and its verdict
        try:
            if not is_claimed:
                other = board.claim(world.rank)
                if other and other.token != token:
                    raise claimed_twice(world, other)
                address = address_towards(socket.gethostbyname(board.host))
                own = Claim(token, own_host, os.getpid(), address, world)
                board.put(world.rank, asdict(own))
                deadline = time.monotonic() + seconds + (min(GRACE_SECONDS, seconds) if world.rank else 0)
                is_claimed, is_over = True, False
            if world.rank == 0:
                new = {rank: board.claim(rank) for rank in range(world.size) if rank not in others}
                others |= {rank: claim for rank, claim in new.items() if claim}
                if len(others) == world.size or is_over:
                    claims = [others[rank] for rank in sorted(others)]
                    board.put("all", {"claims": [asdict(c) for c in claims], "error": _judge(world, claims, seconds)})
            claims = _read_verdict(board, token)
            if claims:
                return claims
            other = board.claim(world.rank)
            if other and other.token != token:
                raise claimed_twice(world, other)
            is_claimed = other is not None
        except (OSError, http.client.HTTPException) as error:  # no name, nobody there, another job's store that closed
            trouble = str(error) or type(error).__name__
            is_claimed = False
        if is_over:
            raise _nobody_answers(board, world, seconds, is_claimed, trouble)
        time.sleep(pause(world.size))  # between two looks, within the bound: the store cannot call us


def leave(board: Board, world: World, token: str) -> None:
    """Take back what this process put onto the board; rank 0 leaves last, as others may still read or join."""
    with suppress(OSError, http.client.HTTPException):
        claim = board.claim(world.rank)
        if not claim or claim.token != token:
            return
        if world.rank == 0:
            until = time.monotonic() + LEAVING_SECONDS
            there = list(range(1, world.size))
            while (there := [rank for rank in there if board.claim(rank)]) and time.monotonic() < until:
                time.sleep(pause(world.size))  # between two looks, within the bound: the store cannot call us
            board.delete("all")
        board.delete(world.rank)


def _judge(world: World, claims: Sequence[Claim], seconds: float) -> str:
    """Why these ranks cannot start; "" when they can."""
    missing = sorted(set(range(world.size)) - {claim.world.rank for claim in claims})
    if missing:
        shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        return (
            f"Rank(s) {shown} of {world.size} did not come to the rendezvous within {seconds:g} s. Look for what they "
            "said, and whether all were started. Where they only need longer, set DISTRAIN_RENDEZVOUS_SECONDS."
        )
    try:
        check_placement([(claim.host, claim.world) for claim in claims])
    except RankError as error:
        return str(error)
    return ""


def _read_verdict(board: Board, token: str) -> list[Claim]:
    """All claims once rank 0 has seen them; empty until then. What an earlier run left on the store does not count."""
    try:
        verdict = json.loads(board.get("all") or b"{}")
        claims = [_claim_of(fields) for fields in verdict.get("claims", [])]
        error = str(verdict.get("error", ""))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return []
    if token not in (claim.token for claim in claims):
        return []
    if error:
        shared = RankError(error)
        shared.reporting_rank = 0
        raise shared
    return claims


def _parsed_claim(content: bytes | None) -> Claim | None:
    """A claim that was read; None for rubbish."""
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
    """The error of the second process that is one rank."""
    return RankError(
        f"Rank {world.rank} is there already: process {other.process} on {other.host[:80]}. This is process "
        f"{os.getpid()} on {socket.gethostname()}. Each rank is one process: start all of them once, by one launcher; "
        "or end those that an earlier start left behind."
    )


def _nobody_answers(board: Board, world: World, seconds: float, is_claimed: bool, trouble: str) -> RankError:
    host = "horovodrun" if world.rendezvous is None else "rank 0"
    told = "answers, but rank 0 did not come to it" if is_claimed else f"did not answer rank {world.rank}"
    return RankError(
        f"The rendezvous at {board.host}:{board.port}, which {host} hosts, {told} within {seconds:g} s"
        f"{'' if is_claimed else f' ({trouble})'}. Look for what {host} and rank 0 said, and whether a firewall stands "
        "between. Where it only needs longer, set DISTRAIN_RENDEZVOUS_SECONDS on every rank."
    )


def pause(size: int) -> float:
    """Seconds between two looks: many ranks ask less often, as one thread of Python answers all of them."""
    return 0.1 + size / 500


def address_towards(address: str) -> str:
    """This host's own address on the way to another; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return str(probe.getsockname()[0])
