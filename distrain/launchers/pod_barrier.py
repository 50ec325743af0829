"""The barrier of an Indexed Job: ranks start when all pods wait here, and the pods learn here that a run is over.

Decides: when a run may start, when a run is over in all pods, and how long pods wait for each other. Never: starts,
ends or counts ranks; `pod.py` does.

    with PodBarrier(IndexedPod(1, 3, "train-0.train", 29400), seconds=1200) as barrier:
        barrier.await_pods(is_stopped=lambda: False)      # all pods wait: start the ranks
        barrier.is_over                                   # True as soon as a pod says that its ranks have failed
        barrier.say_over()                                # this pod says so
        barrier.await_pods(is_stopped=lambda: False)      # keeps its place, until the missing pods have come

    Who                     Sends                               Meaning
    each pod                "distrain pod 1 of 3 at ..., ..."   its index, and that it waits or runs
    pod 0                   "here"                              this is the barrier of that job
    pod 0                   "all are there: TOKEN"              all pods wait: start the run of this token
    pod 0                   "missing: 2 3"                      these pods did not come in time
    a pod that runs         "over"                              its ranks have failed or were interrupted
    pod 0 to pods that run  "over"                              a pod said so, or has come back to wait

Pod 0 listens for its whole life, and connects to itself like the others.
A pod is present while its connection lasts. A broken connection ends no run: the failure detector of the ranks decides.
Each pod that comes or goes gives the missing pods the whole time again, so that late pods do not push each other out.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import re
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Self

from distrain.errors import StopRequested
from distrain.launchers.pod_barrier_server import (
    ALL,
    CONNECT_SECONDS,
    HERE,
    MAX_LINE_BYTES,
    MISSING,
    OVER,
    POLL_SECONDS,
    RUNNING,
    WAITING,
    BarrierServer,
    IndexedPod,
    close,
    keep_alive,
    not_connected,
)

RECONNECT_SECONDS = 5.0  # from a broken connection of a pod that runs to its next attempt
_STOPPED = "Stopped before all pods had started: nothing was trained. Start again to train."
_STOPPED_AGAIN = "Stopped before all pods had started again. Start again: training goes on from the last checkpoint."


class PodBarrier:
    """This pod's place among all pods.

    Args:
        pod: This pod.
        seconds: How long pods wait for missing pods, and each other pod for pod 0.

    Attributes:
        is_over: Whether the run of the last `await_pods` has failed or was interrupted in some pod.
        ranks_rendezvous: Host and port where the ranks meet.
    """

    def __init__(self, pod: IndexedPod, *, seconds: float) -> None:
        self.is_over = False
        self.ranks_rendezvous = pod.ranks_rendezvous()
        self._pod, self._seconds = pod, seconds
        self._server = BarrierServer(pod, seconds) if pod.index == 0 else None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._watch: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None  # to pod 0, while a run goes on

    def __enter__(self) -> Self:
        """Begin to serve the connections."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        self._submit(self._leave()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def await_pods(self, is_stopped: Callable[[], bool]) -> None:
        """Return when all pods wait, so that the ranks may start.

        Args:
            is_stopped: Whether this pod was asked to stop; called every `POLL_SECONDS`.

        Raises:
            RankError: Some pods did not come in time; the message names them.
            StopRequested: This pod was asked to stop before.
        """
        waiting = self._submit(self._await_run())
        while not waiting.done():
            if is_stopped():
                waiting.cancel()
                raise StopRequested(_STOPPED_AGAIN if self._watch else _STOPPED)
            concurrent.futures.wait([waiting], timeout=POLL_SECONDS)
        waiting.result()

    def say_over(self) -> None:
        """Tell all pods that the ranks of this pod have failed or were interrupted, which ends the run everywhere."""
        self._submit(self._say_over()).result()

    def _submit(self, coroutine: Coroutine[Any, Any, None]) -> concurrent.futures.Future[None]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def _await_run(self) -> None:
        """Wait at pod 0 until it answers that all pods wait."""
        await _cancel(self._watch)
        self.is_over = False
        if self._server:
            await self._server.listen()
        deadline = self._loop.time() + self._seconds
        while True:
            try:
                reader, writer = await self._connect(WAITING)
            except (OSError, ValueError) as error:  # no DNS entry yet, no listener, or an address with another owner
                reason = str(error) or type(error).__name__
            else:
                answer = await self._await_answer(reader, writer)
                if answer is None:
                    return
                reason = "another program answers" if answer else "pod 0 closed the connection"
                if not answer:
                    deadline = self._loop.time() + self._seconds  # pod 0 was there until now
            if self._loop.time() > deadline:
                raise not_connected(self._pod, [0], self._seconds, f" ({self._pod.host}:{self._pod.port}: {reason})")
            await asyncio.sleep(POLL_SECONDS)

    async def _await_answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
        """Return None if the ranks may start, and go on listening to pod 0; else what ended the connection."""
        is_kept = False
        try:
            answer = await _read_line(reader)
            if named := re.fullmatch(MISSING % b"([0-9]{1,6}(?: [0-9]{1,6}){0,9998})", answer):
                raise not_connected(self._pod, [int(index) for index in named[1].split()], self._seconds)
            if started := re.fullmatch(ALL % b"([0-9a-f]{16})", answer):
                is_kept = True
                self._watch = self._loop.create_task(self._watch_run(started[1], reader, writer))
                return None
        finally:
            if not is_kept:
                writer.close()
        return answer

    async def _connect(self, state: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to pod 0, and introduce this pod.

        Raises:
            OSError: Pod 0 does not answer at its address.
            ValueError: Another program answers too long a line.
        """
        pod = self._pod
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(
                pod.host, pod.port, family=socket.AF_INET, limit=MAX_LINE_BYTES
            )
            try:
                keep_alive(writer)
                writer.write(pod.greeting() + state)
                if await reader.readline() != HERE:
                    raise ConnectionError("another program answers")
            except BaseException:
                writer.close()
                raise
        return reader, writer

    async def _watch_run(self, token: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Set `is_over` once pod 0 says so; while pod 0 is away, try to connect again."""
        while True:
            self._writer = writer
            try:
                while line := await _read_line(reader):
                    if line == OVER:
                        self.is_over = True
                        return
            finally:
                self._writer = None
                await close(writer)
            reader, writer = await self._reconnect(RUNNING % token)

    async def _reconnect(self, state: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            await asyncio.sleep(RECONNECT_SECONDS)
            with suppress(OSError, ValueError):
                return await self._connect(state)

    async def _say_over(self) -> None:
        if self._server:
            self._server.end_run()
        elif self._writer:
            self._writer.write(OVER)
            with suppress(OSError):
                await self._writer.drain()

    async def _leave(self) -> None:
        if self._server:
            await self._server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            await _cancel(task)
        await asyncio.sleep(0)  # a connection that was closed ends in the next turn of the loop


async def _cancel(task: asyncio.Task[Any] | None) -> None:
    if task:
        task.cancel()
        await asyncio.wait([task])


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    """Return the next line; empty at the end of the connection, and for too long a line."""
    try:
        return await reader.readline()
    except OSError:
        return b""
    except ValueError:
        return b"a line that is too long"
