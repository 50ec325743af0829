"""The barrier of an Indexed Job: each pod waits until all pods have started, before it starts a rank.

Decides: when all pods have connected, and how long to wait for them. Never: starts ranks, or knows what they do.

    await_pods(IndexedPod(1, 3, "train-0.train", 29400), seconds=60, is_stopped=lambda: False)

Pod 0 listens on the port where rank 0 hosts the rendezvous later. Each other pod looks up the name of pod 0, connects
and sends its index. A pod is present while its connection lasts, so a replaced pod leaves nothing behind. When all pods
are present, or the time is up, pod 0 answers every pod. Pod 0 closes all other connections.
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
CONNECT_SECONDS = (
    5.0  # to connect and to send the index; the next attempt looks up the name again, which may have moved
)
GRACE_SECONDS = 10.0  # pod 0 knows which pods are missing, so its answer comes before the other pods give up
MAX_UNKNOWN_CONNECTIONS = 256  # at the same time, besides one connection of each pod
MAX_LINE_BYTES = 2**16
_ALL, _MISSING = b"all are there\n", b"missing:"


@dataclass(frozen=True)
class IndexedPod:
    """A pod of an Indexed Job, and the address of the barrier.

    Attributes:
        index: Completion index, from 0.
        num_pods: Number of pods of the job.
        host: DNS name of pod 0.
        port: TCP port where pod 0 listens.
    """

    index: int
    num_pods: int
    host: str
    port: int

    def greeting(self) -> bytes:
        """Return the line that the pod sends: it names the address too, which may belong to another job by now."""
        return f"distrain pod {self.index} of {self.num_pods} at {self.host}:{self.port}\n".encode()


def await_pods(pod: IndexedPod, *, seconds: float, is_stopped: Callable[[], bool]) -> None:
    """Return when all pods have connected.

    Args:
        pod: This pod.
        seconds: Time limit of pod 0 for the other pods, and of each other pod for pod 0.
        is_stopped: Whether this pod was asked to stop; called every `POLL_SECONDS`.

    Raises:
        RankError: Some pods did not connect in time; the message names them.
        StopRequested: This pod was asked to stop before all pods had connected.
    """
    asyncio.run(_await(pod, seconds, is_stopped))


async def _await(pod: IndexedPod, seconds: float, is_stopped: Callable[[], bool]) -> None:
    barrier = asyncio.create_task(_Server(pod).serve(seconds) if pod.index == 0 else _join(pod, seconds))
    while not barrier.done():
        if is_stopped():
            barrier.cancel()
            await asyncio.wait([barrier])
            raise StopRequested("Stopped before all pods had started: nothing was trained. Start again to train.")
        await asyncio.wait([barrier], timeout=POLL_SECONDS)
    barrier.result()


class _Server:
    """The barrier in pod 0."""

    def __init__(self, pod: IndexedPod) -> None:
        self._pod = pod
        self._index_of = {replace(pod, index=index).greeting(): index for index in range(1, pod.num_pods)}
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._present: dict[int, asyncio.StreamWriter] = {}
        self._changed = asyncio.Event()

    async def serve(self, seconds: float) -> None:
        """Wait for all other pods, and answer them."""
        deadline = asyncio.get_running_loop().time() + seconds
        server = await self._listen(deadline, seconds)
        answer = b""  # a pod 0 that is stopped answers nothing, and the other pods wait for the next pod 0
        try:
            async with asyncio.timeout_at(deadline):
                while self._missing():
                    self._changed.clear()
                    await self._changed.wait()
            answer = _ALL
        except TimeoutError:
            missing = self._missing()
            answer = _MISSING + b" %s\n" % " ".join(map(str, missing)).encode()
            raise _not_connected(self._pod, missing, seconds) from None
        finally:
            server.close()
            for writer in self._present.values():
                writer.write(answer)
            for writer in self._open.values():
                writer.close()
            while self._open:
                await asyncio.wait(self._open)

    def _missing(self) -> list[int]:
        return sorted(set(self._index_of.values()) - set(self._present))

    async def _listen(self, deadline: float, seconds: float) -> asyncio.Server:
        loop, pod = asyncio.get_running_loop(), self._pod
        while True:
            try:
                found = await loop.getaddrinfo(pod.host, pod.port, family=socket.AF_INET, type=socket.SOCK_STREAM)
                return await asyncio.start_server(self._handle, str(found[0][4][0]), pod.port, limit=MAX_LINE_BYTES)
            except OSError as error:  # no DNS entry yet, the address of a former pod 0, or a port in use
                if loop.time() > deadline:
                    raise RankError(
                        f"Pod 0 cannot listen at {pod.host}:{pod.port}: {error}; tried for {seconds:g} s. The name "
                        "must be its own, by a headless Service with publishNotReadyAddresses, and the port free."
                    ) from None
            await asyncio.sleep(POLL_SECONDS)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Count a pod as present while it is connected; close all other connections."""
        index, task = None, asyncio.current_task()
        assert task
        self._open[task] = writer
        try:
            if len(self._open) > self._pod.num_pods + MAX_UNKNOWN_CONNECTIONS:
                return
            async with asyncio.timeout(CONNECT_SECONDS):
                index = self._index_of.get(await reader.readline())
            if index is not None:
                if before := self._present.get(index):  # the network may have hidden the end of this connection
                    before.close()
                self._present[index] = writer
                self._changed.set()
                await reader.read(1)  # a pod sends nothing more, so this returns when it disconnects
        except (OSError, ValueError):  # a broken connection, a slow sender, or too long a line
            pass
        finally:
            if index is not None and self._present.get(index) is writer:
                del self._present[index]
            await _close(writer)
            del self._open[task]


async def _join(pod: IndexedPod, seconds: float) -> None:
    """Connect to pod 0 until it answers that all pods are present."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            answer = await _ask(pod, seconds)
            if answer == _ALL:
                return
            if missing := _parse_missing(answer):
                raise _not_connected(pod, missing, seconds)
            reason = "pod 0 closed the connection" if answer == b"" else "another program answers"
        except (OSError, ValueError) as error:  # no DNS entry yet, no listener, or an address with another owner
            reason = str(error) or type(error).__name__
        if loop.time() > deadline:
            raise _not_connected(pod, [0], seconds, f" ({pod.host}:{pod.port}: {reason})")
        await asyncio.sleep(POLL_SECONDS)


async def _ask(pod: IndexedPod, seconds: float) -> bytes:
    """Connect to pod 0, and return its answer."""
    async with asyncio.timeout(CONNECT_SECONDS):
        reader, writer = await asyncio.open_connection(pod.host, pod.port, family=socket.AF_INET, limit=MAX_LINE_BYTES)
    try:
        writer.write(pod.greeting())
        async with asyncio.timeout(seconds + GRACE_SECONDS):
            return await reader.readline()
    finally:
        await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def _parse_missing(answer: bytes) -> list[int]:
    """Return the missing pods that pod 0 names; empty for any other answer."""
    named = re.fullmatch(_MISSING + rb"((?: [0-9]{1,6}){1,9999})\n", answer)
    return [int(index) for index in named[1].split()] if named else []


def _not_connected(pod: IndexedPod, missing: Sequence[int], seconds: float, reason: str = "") -> RankError:
    shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
    pods = "Pod" if len(missing) == 1 else "Pods"
    return RankError(
        f"{pods} {shown} of {pod.num_pods} did not connect within {seconds:g} s{reason}. Perhaps a node or the image "
        "is missing, or the pod failed: kubectl describe pod -l batch.kubernetes.io/job-completion-index="
        f"{missing[0]}. If a pod only needs more time, set DISTRAIN_RENDEZVOUS_SECONDS."
    )
