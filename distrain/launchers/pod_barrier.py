"""The pods of an Indexed Job wait for each other, before any of them starts a rank.

Decides: when all pods are there, and how long to wait for them. Never: starts ranks, or knows what they do.

    meet_pods(PodPlace(1, 3, "train-0.train", 29400), seconds=60, is_stopped=lambda: False)

Pod 0 listens on the port where its rank 0 will host the rendezvous later. Each other pod looks the name up, connects
and says which one it is. It is there for as long as its connection is, so that one which is replaced while it waits
leaves nothing behind. When all are there pod 0 says so, or after its time who is not. Whatever else connects is cut
off.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from distrain.errors import RankError, StopRequested

POLL_SECONDS = 0.2
ANSWER_SECONDS = 5.0  # to connect, and to say who one is; the next look finds a name that has moved meanwhile
GRACE_SECONDS = 10.0  # pod 0, which knows who is missing, speaks first
MAX_STRANGERS = 256  # connected at the same time
LONGEST_LINE = 2**16  # bytes
_ALL, _MISSING = b"all are there\n", b"missing:"


@dataclass(frozen=True)
class PodPlace:
    """This pod among all, and where they meet.

    Attributes:
        index: its completion index, from 0.
        num_pods: how many there are.
        host: name of pod 0, as the others find it.
        port: of the rendezvous.
    """

    index: int
    num_pods: int
    host: str
    port: int


def meet_pods(place: PodPlace, *, seconds: float, is_stopped: Callable[[], bool]) -> None:
    """Return when all pods are there.

    Args:
        place: this pod.
        seconds: pod 0 waits so long for the others, and each of these for pod 0.
        is_stopped: whether somebody asked this pod to stop; asked all the time.

    Raises:
        RankError: a pod did not come; it says which.
        StopRequested: this pod was asked to stop before all were there.
    """
    asyncio.run(_meet(place, seconds, is_stopped))


async def _meet(place: PodPlace, seconds: float, is_stopped: Callable[[], bool]) -> None:
    meeting = asyncio.create_task(_Host(place).wait(seconds) if place.index == 0 else _visit(place, seconds))
    while not meeting.done():
        if is_stopped():
            meeting.cancel()
            await asyncio.wait([meeting])
            raise StopRequested("Stopped before all pods were there: nothing was trained. Start again to train.")
        await asyncio.wait([meeting], timeout=POLL_SECONDS)
    meeting.result()


class _Host:
    """Pod 0's side."""

    def __init__(self, place: PodPlace) -> None:
        self._place = place
        self._index_of = {_hello(replace(place, index=index)): index for index in range(1, place.num_pods)}
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._present: dict[int, asyncio.StreamWriter] = {}
        self._changed = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Wait for all others, and tell them how it went."""
        deadline = asyncio.get_running_loop().time() + seconds
        server = await self._listen(deadline, seconds)
        verdict = b""  # a pod 0 that leaves says nothing: the others wait for the next one
        try:
            async with asyncio.timeout_at(deadline):
                while self._missing():
                    self._changed.clear()
                    await self._changed.wait()
            verdict = _ALL
        except TimeoutError:
            missing = self._missing()
            verdict = _MISSING + b" %s\n" % " ".join(map(str, missing)).encode()
            raise _did_not_come(self._place, missing, seconds) from None
        finally:
            server.close()
            for writer in self._present.values():
                writer.write(verdict)
            for writer in self._open.values():
                writer.close()
            while self._open:
                await asyncio.wait(self._open)

    def _missing(self) -> list[int]:
        return sorted(set(self._index_of.values()) - set(self._present))

    async def _listen(self, deadline: float, seconds: float) -> asyncio.Server:
        loop, place = asyncio.get_running_loop(), self._place
        while True:
            try:
                found = await loop.getaddrinfo(place.host, place.port, family=socket.AF_INET, type=socket.SOCK_STREAM)
                return await asyncio.start_server(self._greet, str(found[0][4][0]), place.port, limit=LONGEST_LINE)
            except OSError as error:  # no such name yet, the address of a pod that was here before, a port in use
                if loop.time() > deadline:
                    raise RankError(
                        f"Pod 0 cannot listen at {place.host}:{place.port}: {error}; tried for {seconds:g} s. The name "
                        "must be its own, by a headless Service with publishNotReadyAddresses, and the port free."
                    ) from None
            await asyncio.sleep(POLL_SECONDS)

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Count a pod as present for as long as it is connected; cut off all else."""
        index, task = None, asyncio.current_task()
        assert task
        self._open[task] = writer
        try:
            if len(self._open) > self._place.num_pods + MAX_STRANGERS:
                return
            async with asyncio.timeout(ANSWER_SECONDS):
                index = self._index_of.get(await reader.readline())
            if index is not None:
                if before := self._present.get(index):  # a lost network may hide its end
                    before.close()
                self._present[index] = writer
                self._changed.set()
                await reader.read(1)  # until it leaves, as it has nothing more to say
        except (OSError, ValueError):  # a broken connection, too slow, or too long a line
            pass
        finally:
            if index is not None and self._present.get(index) is writer:
                del self._present[index]
            await _close(writer)
            del self._open[task]


async def _visit(place: PodPlace, seconds: float) -> None:
    """The other pods' side."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await asyncio.open_connection(
                    place.host, place.port, family=socket.AF_INET, limit=LONGEST_LINE
                )
            verdict = await _ask(reader, writer, place, seconds)
            if verdict == _ALL:
                return
            if missing := _missing_in(verdict):
                raise _did_not_come(place, missing, seconds)
            trouble = "it left" if verdict == b"" else "somebody else answers"
        except (OSError, ValueError) as error:  # no such name yet, nobody there, an address that is another's now
            trouble = str(error) or type(error).__name__
        if loop.time() > deadline:
            raise _did_not_come(place, [0], seconds, f" ({place.host}:{place.port}: {trouble})")
        await asyncio.sleep(POLL_SECONDS)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, place: PodPlace, seconds: float) -> bytes:
    try:
        writer.write(_hello(place))
        async with asyncio.timeout(seconds + GRACE_SECONDS):
            return await reader.readline()
    finally:
        await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def _hello(place: PodPlace) -> bytes:
    """Names the job too: the address of an older pod 0 may be another job's by now."""
    return f"distrain pod {place.index} of {place.num_pods} at {place.host}:{place.port}\n".encode()


def _missing_in(verdict: bytes) -> list[int]:
    """Who pod 0 says is missing; nobody where it says something else."""
    named = re.fullmatch(_MISSING + rb"((?: [0-9]{1,6}){1,9999})\n", verdict)
    return [int(index) for index in named[1].split()] if named else []


def _did_not_come(place: PodPlace, missing: Sequence[int], seconds: float, why: str = "") -> RankError:
    shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
    pods = "Pod" if len(missing) == 1 else "Pods"
    return RankError(
        f"{pods} {shown} of {place.num_pods} did not come within {seconds:g} s{why}. Find out what is in the way, like "
        "no room, no image or an error of its own: kubectl describe pod -l batch.kubernetes.io/job-completion-index="
        f"{missing[0]}. Where it only needs longer, set DISTRAIN_RENDEZVOUS_SECONDS."
    )
