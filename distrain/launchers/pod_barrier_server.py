"""Pod 0's side of the barrier of an Indexed Job (`pod_barrier.py`).

Decides: which pods wait, when a run starts and when it is over, and which pods are missing. Never: waits for this pod's
own ranks, or knows why a pod leaves.

    server = BarrierServer(IndexedPod(0, 3, "train-0.train", 29400), seconds=1200)
    await server.listen()                                 # pods connect, from now on until:
    await server.close()

Each change of the waiting pods starts the time limit anew. Connections of strangers are closed within 5 s.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from distrain.errors import RankError

POLL_SECONDS = 0.2
CONNECT_SECONDS = (
    5.0  # to connect and to send the index; the next attempt looks up the name again, which may have moved
)
MAX_UNKNOWN_CONNECTIONS = 256  # at the same time, besides two connections of each pod
MAX_LINE_BYTES = 2**16
WAITING, RUNNING, OVER = b", waiting\n", b", running %s\n", b"over\n"
HERE, ALL, MISSING = b"here\n", b"all are there: %s\n", b"missing: %s\n"

# A node that vanishes says nothing: then the kernel gives a connection up after a minute.
_KEEP_ALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}


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
        """Return how the pod introduces itself: by the address too, which may belong to another job by now."""
        return f"distrain pod {self.index} of {self.num_pods} at {self.host}:{self.port}".encode()

    def ranks_rendezvous(self) -> str:
        """Return host and port where the ranks meet, beside the port of the barrier."""
        return f"{self.host}:{self.port + 1 if self.port < 65535 else self.port - 1}"


class BarrierServer:
    """The barrier in pod 0, which serves all pods.

    Args:
        pod: This pod, with index 0.
        seconds: Time limit for missing pods, from the last pod that came or went.
    """

    def __init__(self, pod: IndexedPod, seconds: float) -> None:
        self._pod, self._seconds = pod, seconds
        self._index_of = {replace(pod, index=index).greeting(): index for index in range(pod.num_pods)}
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._waiting: dict[int, asyncio.StreamWriter] = {}
        self._running: dict[int, asyncio.StreamWriter] = {}
        self._token = b""  # of the run that is going on
        self._timer: asyncio.TimerHandle | None = None
        self._server: asyncio.Server | None = None
        self._is_closing = False

    async def listen(self) -> None:
        """Begin to serve; does nothing if the server listens already.

        Raises:
            RankError: This pod cannot listen at the address of pod 0.
        """
        loop, pod = asyncio.get_running_loop(), self._pod
        deadline = loop.time() + self._seconds
        while self._server is None:
            try:
                found = await loop.getaddrinfo(pod.host, pod.port, family=socket.AF_INET, type=socket.SOCK_STREAM)
                address = str(found[0][4][0])
                self._server = await asyncio.start_server(self._accept, address, pod.port, limit=MAX_LINE_BYTES)
            except OSError as error:  # no DNS entry yet, the address of a former pod 0, or a port in use
                if loop.time() > deadline:
                    raise RankError(
                        f"Pod 0 cannot listen at {pod.host}:{pod.port}: {error}; tried for {self._seconds:g} s. The "
                        "name must be its own, by a headless Service with publishNotReadyAddresses, and the port free."
                    ) from None
                await asyncio.sleep(POLL_SECONDS)

    async def close(self) -> None:
        """Close all connections; the other pods look for the next pod 0."""
        self._is_closing = True
        self._stop_timer()
        if self._server:
            self._server.close()
        for writer in self._open.values():
            writer.close()
        while self._open:
            await asyncio.wait(self._open)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection in a task of its own; the barrier refuses it while it closes, or if it has too many."""
        if self._is_closing or len(self._open) >= 2 * self._pod.num_pods + MAX_UNKNOWN_CONNECTIONS:
            writer.close()
            return
        task = asyncio.create_task(self._handle(reader, writer))
        self._open[task] = writer
        task.add_done_callback(self._open.pop)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a pod while it is connected; close all other connections."""
        index = None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                greeting, comma, state = (await reader.readline()).rpartition(b",")
            index = self._index_of.get(greeting)
            if index is not None and self._admit(index, comma + state, writer):
                keep_alive(writer)
                while line := await reader.readline():  # empty when the pod disconnects
                    if line == OVER and self._running.get(index) is writer:
                        self.end_run()
        except (OSError, ValueError):  # a broken connection, a slow sender, or too long a line
            pass
        finally:
            if index is not None:
                self._remove(index, writer)
            await close(writer)

    def _admit(self, index: int, state: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answer the greeting of a pod; return whether the connection goes on."""
        if state == WAITING:
            self._drop(index)
            self.end_run()  # this pod has come back to wait, so its part of the run is over
            writer.write(HERE)
            self._waiting[index] = writer
            self._await_missing()
            return True
        if self._token and state == RUNNING % self._token:
            self._drop(index)
            writer.write(HERE)
            self._running[index] = writer
            return True
        if state.startswith(RUNNING.split(b"%")[0]):
            writer.write(HERE + OVER)
        return False

    def _drop(self, index: int) -> None:
        """Close the earlier connection of a pod; the network may have hidden its end."""
        for pods in (self._waiting, self._running):
            if before := pods.pop(index, None):
                before.close()

    def _remove(self, index: int, writer: asyncio.StreamWriter) -> None:
        if self._running.get(index) is writer:
            del self._running[index]
        if self._waiting.get(index) is writer:
            del self._waiting[index]
            self._await_missing()

    def _await_missing(self) -> None:
        """Start the run if no pod is missing, else the time limit."""
        self._stop_timer()
        if not self._missing():
            self._token = secrets.token_hex(8).encode()
            self._running, self._waiting = self._waiting, {}
            for writer in self._running.values():
                writer.write(ALL % self._token)
        elif self._waiting:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._give_up)

    def _give_up(self) -> None:
        named = " ".join(map(str, self._missing())).encode()
        for writer in self._waiting.values():
            writer.write(MISSING % named)
        self._waiting = {}

    def end_run(self) -> None:
        """Tell all pods that run that the run is over; does nothing if none goes on."""
        if self._token:
            self._token = b""
            for writer in self._running.values():
                writer.write(OVER)

    def _missing(self) -> list[int]:
        return sorted(set(self._index_of.values()) - set(self._waiting))

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None


def keep_alive(writer: asyncio.StreamWriter) -> None:
    """Let the kernel notice that the other host has vanished."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEP_ALIVE.items():
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection after all that was written has been sent."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def not_connected(pod: IndexedPod, missing: Sequence[int], seconds: float, reason: str = "") -> RankError:
    """Return the error of a pod that has waited too long for others."""
    shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
    pods = "Pod" if len(missing) == 1 else "Pods"
    return RankError(
        f"{pods} {shown} of {pod.num_pods} did not connect within {seconds:g} s{reason}. Perhaps a node or the image "
        "is missing, or the pod failed: kubectl describe pod -l batch.kubernetes.io/job-completion-index="
        f"{missing[0]}. If a pod only needs more time, set DISTRAIN_RENDEZVOUS_SECONDS."
    )
