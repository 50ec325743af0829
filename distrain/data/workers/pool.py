"""Processes that read and transform examples for one process.

Decides: how data workers start and end, and which one reads which examples. Never: which examples are read, or when.

    with WorkerPool(4) as workers:
        shared = workers.add(reader, layout)           # in the process that trains
        workers.start()
        rows = shared.submit(np.array([3, 7]), epoch=0, priority=(0, 0)).result()

A worker is a fresh interpreter, as TensorFlow's threads do not survive a fork. It ignores requests to stop, which are
for the process that trains, and ends with that process, even if that process is killed. A thread waits for each
worker, so that the end of a worker is noticed at once.
"""

from __future__ import annotations

import itertools
import os
import pickle
import queue
import signal
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from distrain.data.by_position.elements import Layout
from distrain.data.by_position.source_reader import SourceReader
from distrain.data.examples import RowNests
from distrain.data.workers.messages import packed_readers, receive_answer, receive_rows
from distrain.data.workers.process import WorkerProcess, start_worker, worker_setup

CHUNK_BYTES = 2**21  # most bytes of an answer, unless a single example is larger
CHUNK_SECONDS = 0.06  # a worker reads about so long for an answer: far longer than a message takes
FIRST_CHUNK = 16  # examples of the first answers
MAX_CHUNK = 4096  # examples

Priority = tuple[int, int]  # lower ones are read first


@dataclass(frozen=True)
class _Task:
    future: Future[RowNests]
    key: int
    numbers: np.ndarray
    epoch: int
    found: Any


@dataclass
class SharedReader:
    """A reader that all workers of a pool have.

    Attributes:
        pool: the workers.
        key: number of the reader.
        reader: reads the source.
        layout: layout of each example.
        chunk: examples of the next answer, which follows from the time that earlier ones took.
    """

    pool: WorkerPool
    key: int
    reader: SourceReader
    layout: Layout
    chunk: int = FIRST_CHUNK

    @property
    def is_running(self) -> bool:
        """Whether the workers run."""
        return self.pool.is_running

    @property
    def max_chunk(self) -> int:
        """Most examples in an answer."""
        return max(1, min(MAX_CHUNK, CHUNK_BYTES // max(1, self.layout.row_bytes)))

    def submit(self, numbers: np.ndarray, *, epoch: int, priority: Priority, found: Any = None) -> Future[RowNests]:
        """Ask for examples, as `SourceReader.read` returns them."""
        return self.pool.submit(_Task(Future(), self.key, numbers, epoch, found), priority)

    def adapt(self, count: int, seconds: float) -> None:
        """Adapt the size of answers to one that took `seconds`."""
        wanted = count * min(2.0, max(0.5, CHUNK_SECONDS / max(seconds, 1e-6)))
        self.chunk = max(1, min(self.max_chunk, round(wanted)))


class WorkerPool:
    """A number of data workers, to be used as a context manager; none start before `start`.

    Args:
        size: number of processes; 0 reads in the process itself.

    Attributes:
        size: as given.
        is_running: whether the workers run.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.is_running = False
        self._readers: list[SharedReader] = []
        self._tasks: queue.PriorityQueue[tuple[Priority, int, _Task | None]] = queue.PriorityQueue()
        self._count = itertools.count()
        self._workers: list[WorkerProcess] = []
        self._threads: list[threading.Thread] = []
        self._failure: Exception | None = None
        self._write_end = -1

    def add(self, reader: SourceReader, layout: Layout) -> SharedReader:
        """Give a reader to all workers that start later."""
        shared = SharedReader(self, len(self._readers), reader, layout)
        self._readers.append(shared)
        return shared

    @property
    def has_readers(self) -> bool:
        """Whether the workers have something to read."""
        return bool(self._readers)

    def start(self) -> None:
        """Start the workers, if they have something to read.

        Raises:
            ConfigurationError: a source or a function cannot be sent to another process.
        """
        if not self.has_readers:
            return
        readers = packed_readers([(shared.reader.without_elements(), shared.layout) for shared in self._readers])
        setup = pickle.dumps(worker_setup(needs_main=b"__main__" in readers))
        read_end, self._write_end = os.pipe()
        try:
            for number in range(1, self.size + 1):
                self._workers.append(start_worker(number, read_end))
        finally:
            os.close(read_end)
        for worker in self._workers:
            thread = threading.Thread(target=self._serve, args=(worker, [setup, readers]), daemon=True)
            self._threads.append(thread)
            thread.start()
        self.is_running = True

    def submit(self, task: _Task, priority: Priority) -> Future[RowNests]:
        """Queue a task; see `SharedReader.submit`."""
        self._tasks.put((priority, next(self._count), task))
        if not self.is_running:  # nobody would answer, and `close` may have cancelled what was queued before
            task.future.cancel()
        return task.future

    def close(self) -> None:
        """End all workers, and whatever they started, at once."""
        self.is_running = False
        for worker in self._workers:
            with suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGKILL)
            worker.process.wait()
            self._tasks.put(((-1, 0), next(self._count), None))
        for thread in self._threads:
            thread.join()
        for worker in self._workers:
            worker.connection.close()
        if self._write_end >= 0:
            os.close(self._write_end)
        self._workers, self._threads, self._write_end = [], [], -1
        while not self._tasks.empty():
            if task := self._tasks.get()[2]:
                task.future.cancel()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _serve(self, worker: WorkerProcess, first: list[bytes]) -> None:
        """Hand tasks to one worker until the pool is closed; runs in a thread."""
        try:
            for content in first:
                worker.connection.send_bytes(content)
            receive_answer(worker.connection)
        except Exception as error:
            self._fail(worker.lost("it started", self.size) if isinstance(error, (OSError, EOFError)) else error)
        while (task := self._tasks.get()[2]) is not None:
            if not task.future.set_running_or_notify_cancel():
                continue
            if self._failure is not None:
                task.future.set_exception(self._failure)
                continue
            try:
                task.future.set_result(self._ask(worker, task))
            except (OSError, EOFError):
                self._fail(
                    worker.lost(f"it read {_shown(task.numbers)} of {self._readers[task.key].reader.name}", self.size)
                )
                task.future.set_exception(self._failure)
            except Exception as error:
                task.future.set_exception(error)

    def _ask(self, worker: WorkerProcess, task: _Task) -> RowNests:
        started = time.perf_counter()
        shared = self._readers[task.key]
        message = pickle.dumps((task.key, task.numbers, task.epoch, task.found), pickle.HIGHEST_PROTOCOL)
        worker.connection.send_bytes(message)
        rows = receive_rows(worker.connection, shared.layout, len(task.numbers))
        shared.adapt(len(task.numbers), time.perf_counter() - started)
        return rows

    def _fail(self, error: Exception) -> None:
        """Let all further tasks raise `error`, unless an earlier error does."""
        self._failure = self._failure or error


def _shown(numbers: np.ndarray) -> str:
    if len(numbers) == 1:
        return f"example {numbers[0]}"
    if np.all(np.diff(numbers) == 1):
        return f"examples {numbers[0]} to {numbers[-1]}"
    few = ", ".join(map(str, numbers[:3].tolist()))
    return f"{len(numbers)} examples ({few}{', ...' if len(numbers) > 3 else ''})"
